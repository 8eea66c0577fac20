"""Whatever is passed, the interpreter survives and the error is one of ours."""

from __future__ import annotations

import functools
import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as of_numpy

from lepton_ai import LeptonError, Session, _native

ROUNDS = settings(max_examples=300 * int(os.environ.get("LEPTON_FUZZ_TIMES", "1")), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

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


REAL = ["finance/ulb_creditcard_sample/fraud_mlp.onnx", "tabular/hand_gesture/keypoint_classifier.tflite", "lepton"]


@functools.cache
def real(asset, name: str) -> bytes:
    """The bytes of a real model's file; ``lepton`` is an artefact with coded weights."""
    if name != "lepton":
        return asset(name).read_bytes()
    data: bytes = _native.compressed(_native.Model.open(str(asset(REAL[0]))), '[{"method": "weight-int8"}]', [])
    return data


@pytest.mark.parametrize("name", REAL)
@ROUNDS
@given(data=st.data())
def test_damaged_files(asset, name, data):
    damaged = bytearray(real(asset, name))
    for _ in range(data.draw(st.integers(0, 6))):
        # Half of the changes where headers, names and shapes are.
        most = data.draw(st.sampled_from([min(2000, len(damaged)), len(damaged)])) - 1
        damaged[data.draw(st.integers(0, most))] ^= 1 << data.draw(st.integers(0, 7))
    if data.draw(st.booleans()):
        damaged = damaged[: data.draw(st.integers(0, len(damaged)))]
    try:
        session = Session(bytes(damaged))
        session.profile()
        for spec in session.inputs:
            assert spec.name and spec.dtype
        session.predict(np.zeros((2, 30), np.float32))
    except LeptonError as error:
        assert error.code and error.message


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
