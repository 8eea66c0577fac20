"""Sessions: answers, memory, errors, threads, pickling."""

from __future__ import annotations

import asyncio
import copy
import gc
import pickle
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from conftest import WEIGHT, unary

import lepton_ai
from lepton_ai import LeptonError, Session

X = np.array([[1.0, 2.0, 3.0], [0.0, -1.0, 0.5]], np.float32)


def test_the_answer_is_right(linear):
    session = Session(linear)
    assert session.inputs == [("x", "float32", ("batch", 3))]
    assert session.outputs == [("y", "float32", ("batch", 2))]
    np.testing.assert_allclose(session.run({"x": X})["y"], X @ WEIGHT, rtol=1e-6)
    np.testing.assert_allclose(session.run(X)["y"], X @ WEIGHT, rtol=1e-6)
    np.testing.assert_allclose(session.run(X[:0])["y"].shape, (0, 2))


def test_layouts_do_not_change_the_answer(linear):
    session, expected = Session(linear), X @ WEIGHT
    unaligned = np.zeros(X.nbytes + 1, np.uint8)[1:].view(np.float32).reshape(X.shape)
    unaligned[:] = X
    frozen = X.copy()
    frozen.flags.writeable = False
    for other in [np.asfortranarray(X), X[::-1][::-1], np.repeat(X, 2, 1)[:, ::2], X.astype(">f4"), unaligned,
                  frozen, X.tolist(), [list(row) for row in X]]:
        np.testing.assert_allclose(session.run({"x": other})["y"], expected, rtol=1e-6)


@pytest.mark.parametrize("number, dtype", [(1, "f4"), (11, "f8"), (10, "f2"), (2, "u1"), (3, "i1"), (6, "i4"),
                                           (7, "i8"), (9, "?")])
def test_element_types_go_through(number, dtype):
    session = Session(unary("Identity", number, ["n"]))
    values = np.array([0, 1, 1, 0, 5], dtype)
    answer = session.run({"x": values})["y"]
    assert answer.dtype == values.dtype
    np.testing.assert_array_equal(answer, values)


def test_arrays_without_axes_go_through():
    session = Session(unary("Neg", 1, []))
    answer = session.run({"x": np.float32(3.0)})["y"]
    assert answer.shape == () and answer == -3.0
    assert session.run({"x": 3})["y"] == -3.0
    assert session.run({"x": np.array(3.0, np.float32)})["y"] == -3.0


def test_outputs_own_their_memory(pair):
    session = Session(pair)
    a = np.array([[1, 2]])
    first = session.run({"a": a, "b": a})
    assert first["same"].flags.writeable
    first["same"][:] = 9
    first["sum"][:] = 9
    second = session.run({"a": a, "b": a})
    assert a.tolist() == [[1, 2]] and second["sum"].tolist() == [[2, 4]] and second["same"].tolist() == [[1, 2]]
    assert not np.shares_memory(second["same"], a)
    kept = second["sum"]
    del session, first, second
    gc.collect()
    assert kept.tolist() == [[2, 4]]


def test_weights_cannot_be_written_through_outputs(linear):
    from lepton_ai._onnx import graph, model, node, tensor

    constant = model(graph([node("Identity", ["w"], ["y"])], {}, {"y": (1, [3, 2])}, [tensor("w", WEIGHT)]))
    session = Session(constant)
    session.run({})["y"][:] = 0
    np.testing.assert_array_equal(session.run({})["y"], WEIGHT)


def test_inputs_are_let_go(linear):
    class Counted(np.ndarray):
        pass

    session = Session(linear)
    array = X.copy().view(Counted)
    gone = weakref.ref(array)
    session.run({"x": array})
    del array
    gc.collect()
    assert gone() is None


def test_memory_does_not_grow(linear):
    import resource

    session = Session(linear)
    rows = np.zeros((100_000, 3), np.float32)
    for _ in range(20):
        session.run(rows)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(300):
        session.run(rows)
    grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown_kb < 20_000, f"300 runs of 2 MB grew by {grown_kb} KB"


@pytest.mark.parametrize(
    "inputs, code, said",
    [
        ({}, "input.name", "`x` is missing; given: none"),
        ({"z": X}, "input.name", "`x` is missing; given: `z`"),
        ({"x": X, "z": X}, "input.name", "no input `z`; its inputs are `x`"),
        ({"x": X, 5: X}, "input.name", "no input `5`"),
        ({"x": X.astype("f8")}, "input.type", "takes float32 (f32[batch,3]); the array is float64"),
        ({"x": X.astype("c8")}, "input.type", "arrays of complex64"),
        ({"x": "text"}, "input.type", "found str"),
        ({"x": None}, "input.type", "found NoneType"),
        ({"x": [["a"]]}, "input.type", "list is not an array of float32"),
        ({"x": [[1, 2], [3]]}, "input.type", "list is not an array of float32"),
        ({"x": X[:, :2]}, "input.shape", "expected f32[batch,3], found shape [2, 2]"),
        ({"x": X[0]}, "input.shape", "found shape [3]"),
    ],
)
def test_what_does_not_fit_is_named(linear, inputs, code, said):
    with pytest.raises(LeptonError) as caught:
        Session(linear).run(inputs)
    assert caught.value.code == code and said in caught.value.message and caught.value.help


def test_equal_symbols_are_equal_extents(pair):
    a = np.zeros((2, 2), np.int64)
    with pytest.raises(lepton_ai.InputShapeError, match="n is 2 here"):
        Session(pair).run({"a": a, "b": a[:1]})
    with pytest.raises(lepton_ai.InputNameError, match="2 inputs: `a`, `b`"):
        Session(pair).run(a)


def test_lists_keep_whole_numbers_whole(pair):
    session = Session(pair)
    assert session.run({"a": [[1, 2]], "b": [[3, 4]]})["sum"].tolist() == [[4, 6]]
    with pytest.raises(lepton_ai.InputTypeError):
        session.run({"a": [[1.5, 2.0]], "b": [[3, 4]]})
    small = Session(unary("Identity", 2, ["n"]))
    assert small.run([255, 0])["y"].tolist() == [255, 0]
    with pytest.raises(lepton_ai.InputTypeError, match="out of range"):
        small.run([256])


@pytest.mark.parametrize("bad, code", [("missing.onnx", "file"), (".", "file"), (b"", "model.invalid"),
                                       (b"\x08\x08:\x03abc", "model.invalid"), (5, "model.unsupported"),
                                       (None, "model.unsupported")])
def test_what_is_no_model_is_refused(bad, code):
    with pytest.raises(LeptonError) as caught:
        Session(bad)
    assert caught.value.code == code


@pytest.mark.parametrize("threads", [0, -1, 5000, 1.5, "2", True])
def test_threads_must_make_sense(linear, threads):
    with pytest.raises(lepton_ai.UsageError):
        Session(linear, threads)


def test_errors_survive_pickling(linear):
    with pytest.raises(LeptonError) as caught:
        Session(linear).run({})
    again = pickle.loads(pickle.dumps(caught.value))
    assert type(again) is lepton_ai.InputNameError and str(again) == str(caught.value)


def test_pickled_and_copied_sessions_run(linear, tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(linear)
    session = Session(path, threads=2)
    data = pickle.dumps(session)
    path.unlink()
    for other in [pickle.loads(data), copy.deepcopy(session), copy.copy(session)]:
        assert type(other) is Session and other.threads == 2
        np.testing.assert_array_equal(other.run(X)["y"], session.run(X)["y"])


@pytest.mark.parametrize("threads", [1, 2])
def test_several_threads_share_a_session(asset, threads):
    session = Session(asset("image/mnist_models/lenet5_caffe.onnx"), threads)
    inputs = [np.random.default_rng(i).random((i % 3 + 1, 1, 28, 28), np.float32) for i in range(12)]
    expected = [session.run(x)["logits"] for x in inputs]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(10):
            for found, wanted in zip(pool.map(lambda x: session.run(x)["logits"], inputs), expected):
                np.testing.assert_array_equal(found, wanted)


def test_other_threads_go_on_during_a_run(asset):
    session = Session(asset("image/mnist_models/lenet5_caffe.onnx"))
    rows = np.zeros((2000, 1, 28, 28), np.float32)
    ticks, done = [0], threading.Event()

    def tick():
        while not done.wait(0.001):
            ticks[0] += 1

    thread = threading.Thread(target=tick)
    session.run(rows)
    thread.start()
    before = ticks[0]
    session.run(rows)
    during = ticks[0] - before
    done.set()
    thread.join()
    assert during >= 5, f"{during} ticks of 1 ms during a run of some tenths of a second"


def test_async_runs_answer_like_runs(linear):
    session = Session(linear)

    async def both():
        return await asyncio.gather(session.run_async({"x": X}), session.run_async(X))

    for answer in asyncio.run(both()):
        np.testing.assert_array_equal(answer["y"], session.run(X)["y"])


def test_profiles_name_the_steps(asset):
    session = Session(asset("image/mnist_models/lenet5_caffe.onnx"))
    profile = session.profile()
    assert len(profile.steps) >= 4 and profile.time_us > 0
    assert {"Conv", "Linear"} <= {step.operator.split("(")[0] for step in profile.steps}
    assert sum(step.multiply_adds for step in profile.steps) > 2_000_000
    assert all(step.time_us >= 0 and step.start_us >= 0 for step in profile.steps)
    assert "kernel" in str(profile)
    assert session.profile(np.zeros((3, 1, 28, 28), np.float32)).steps


def test_predict_takes_rows(linear):
    session = Session(linear)
    rows = np.random.default_rng(0).random((1000, 3))
    np.testing.assert_allclose(session.predict(rows), rows @ WEIGHT, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(session.predict([[1, 2, 3]]), [[1, 2, 3]] @ WEIGHT, rtol=1e-6)
    assert session.predict(rows[:0]).shape == (0, 2)
    for bad, error in [(5, lepton_ai.UsageError), ([["a", "b", "c"]], lepton_ai.InputTypeError),
                       (rows[:, :2], lepton_ai.InputShapeError)]:
        with pytest.raises(error):
            session.predict(bad)


def test_predict_fills_fixed_batches():
    session = Session(unary("Neg", 1, [4, 2]))
    rows = np.arange(18, dtype=np.float32).reshape(9, 2)
    np.testing.assert_array_equal(session.predict(rows), -rows)


def test_models_say_what_they_are(linear, tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(linear)
    model = lepton_ai.Model.open(path)
    assert (model.format, model.file_bytes, model.path) == ("onnx", len(linear), str(path))
    assert model.content_hash == lepton_ai.Model.from_bytes("other", linear).content_hash
    assert "MatMul" in str(model) and Session(model).model.content_hash == model.content_hash
