"""Whatever is passed, the interpreter survives and the error is one of ours."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as of_numpy

from lepton_ai import LeptonError, Session

ROUNDS = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

ANY_ARRAY = of_numpy.arrays(
    dtype=st.one_of(of_numpy.scalar_dtypes(), of_numpy.array_dtypes(), of_numpy.nested_dtypes()),
    shape=of_numpy.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=4),
)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.complex_numbers(), st.text(), st.binary(), st.dates()
)
VALUES = st.one_of(
    ANY_ARRAY,
    SCALARS,
    st.recursive(SCALARS, lambda inner: st.one_of(st.lists(inner), st.tuples(inner), st.sets(st.integers()))),
)
INPUTS = st.one_of(
    VALUES,
    st.dictionaries(st.one_of(st.sampled_from(["x", "a", "b"]), st.text(), st.integers()), VALUES, max_size=4),
)


def _runs_or_refuses(session: Session, inputs: object) -> None:
    try:
        answer = session.run(inputs)
    except LeptonError as error:
        assert error.code and error.message
    else:
        for array in answer.values():
            array.copy()


@ROUNDS
@given(inputs=INPUTS)
def test_any_input(linear, pair, inputs):
    _runs_or_refuses(Session(linear), inputs)
    _runs_or_refuses(Session(pair), inputs)


@ROUNDS
@given(inputs=st.fixed_dictionaries({"a": VALUES, "b": VALUES}))
def test_any_values_under_the_right_names(pair, inputs):
    _runs_or_refuses(Session(pair), inputs)


@ROUNDS
@given(rows=VALUES)
def test_any_rows(linear, rows):
    try:
        Session(linear).predict(rows)
    except LeptonError:
        pass


@ROUNDS
@given(data=st.binary(max_size=200))
def test_any_bytes(data):
    try:
        Session(data)
    except LeptonError:
        pass


@ROUNDS
@given(data=st.data())
def test_damaged_models(linear, pair, data):
    damaged = bytearray(data.draw(st.sampled_from([linear, pair])))
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    damaged = damaged[: data.draw(st.integers(0, len(damaged)))]
    try:
        session = Session(bytes(damaged))
    except LeptonError:
        return
    _runs_or_refuses(session, {"x": np.zeros((1, 3), np.float32)})
    try:
        session.profile()
    except LeptonError:
        pass


@pytest.mark.parametrize(
    "attributes",
    [
        {"__array__": lambda self, *a, **k: 5},
        {"__array__": lambda self, *a, **k: self},
        {"__array_interface__": {"data": (0, False), "shape": (2, 3), "typestr": "<f4", "version": 3}},
        {"__dlpack__": lambda self, **k: None, "__dlpack_device__": lambda self: (1, 0)},
        {"__dlpack__": lambda self, **k: 1 / 0, "__dlpack_device__": lambda self: (1, 0)},
        {"__dlpack__": lambda self, **k: None, "__dlpack_device__": lambda self: None},
        {"__dlpack__": lambda self, **k: None},
    ],
)
def test_what_lies_about_being_an_array(linear, attributes):
    hostile = type("Hostile", (), attributes)()
    with pytest.raises((LeptonError, ZeroDivisionError, TypeError, AttributeError, ValueError)):
        Session(linear).run({"x": hostile})
