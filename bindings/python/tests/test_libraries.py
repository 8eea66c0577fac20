"""Models and tensors of other libraries, where they are installed."""

from __future__ import annotations

import numpy as np
import pytest

import lepton_ai
from lepton_ai import Session


def test_onnx(linear):
    onnx = pytest.importorskip("onnx")
    proto = onnx.load_from_string(linear)
    assert Session(proto).run(np.ones((1, 3), np.float32))["y"].shape == (1, 2)


def test_bfloat16():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    from conftest import unary

    session = Session(unary("Identity", 16, ["n"]))
    values = np.array([1.5, -2.0], ml_dtypes.bfloat16)
    answer = session.run(values)["y"]
    assert answer.dtype == ml_dtypes.bfloat16 and answer.tolist() == [1.5, -2.0]


SHORT = [(16, "bfloat16"), (17, "float8_e4m3fn"), (18, "float8_e4m3fnuz"), (19, "float8_e5m2"),
         (20, "float8_e5m2fnuz"), (21, "uint4"), (22, "int4")]


@pytest.mark.parametrize("number, name", SHORT)
def test_short_types(number, name):
    from conftest import unary

    session = Session(unary("Identity", number, ["n"], version=21))
    assert session.inputs[0].dtype == name
    try:
        import ml_dtypes
    except ImportError:
        with pytest.raises(lepton_ai.MissingPackageError, match="pip install -U ml_dtypes"):
            session.run([1, 2, 3])
        return
    values = np.array([1, 2, 3], getattr(ml_dtypes, name))
    for given in (values, [1, 2, 3]):
        answer = session.run(given)["y"]
        assert answer.dtype == values.dtype and answer.nbytes == values.nbytes
        np.testing.assert_array_equal(answer.astype(np.float32), [1, 2, 3])
    if name == "int4":
        assert session.run(np.array([-8, -1], ml_dtypes.int4))["y"].astype(np.int8).tolist() == [-8, -1]


def test_torch_tensors_are_read_in_place(linear):
    torch = pytest.importorskip("torch")
    session = Session(linear)
    tensor = torch.arange(6, dtype=torch.float32).reshape(2, 3)
    expected = session.run(tensor.numpy())["y"]
    np.testing.assert_array_equal(session.run({"x": tensor})["y"], expected)
    np.testing.assert_array_equal(session.run({"x": tensor.clone().requires_grad_()})["y"], expected)
    np.testing.assert_array_equal(session.run({"x": tensor.T.contiguous().T})["y"], expected)
    with pytest.raises(lepton_ai.InputTypeError, match="float64"):
        session.run({"x": tensor.double()})
    answer = torch.from_dlpack(session.run(tensor)["y"])
    assert answer.shape == (2, 2)


def tensors_of(name):
    """How a library makes a tensor of an array, and how it takes one that has ``__dlpack__``."""
    library = pytest.importorskip({"jax": "jax", "tensorflow": "tensorflow", "torch": "torch"}[name])
    if name == "torch":
        return library.from_numpy, library.from_dlpack
    if name == "jax":
        return library.numpy.asarray, library.dlpack.from_dlpack
    return library.constant, lambda array: library.experimental.dlpack.from_dlpack(array.__dlpack__())


@pytest.mark.parametrize("name", ["torch", "jax", "tensorflow"])
def test_tensors_go_in_and_out_without_copies(linear, name):
    make, take = tensors_of(name)
    session = Session(linear)
    rows = np.arange(6, dtype=np.float32).reshape(2, 3)
    answer = session.run({"x": make(rows)})["y"]
    np.testing.assert_array_equal(answer, session.run({"x": rows})["y"])
    np.testing.assert_array_equal(session.predict(make(rows)), answer)
    taken = take(answer)
    np.testing.assert_array_equal(np.asarray(taken), answer)
    if name == "torch":
        answer[0, 0] = 77.0
        assert float(taken[0, 0]) == 77.0, "over the same memory"
    with pytest.raises(lepton_ai.InputShapeError):
        session.run({"x": make(rows[:, :2].copy())})
    with pytest.raises(lepton_ai.InputTypeError, match="int32"):
        session.run({"x": make(rows.astype(np.int32))})


def test_torch_modules():
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnx")
    module = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Dropout(), torch.nn.Linear(8, 3))
    module.train()
    session = Session(module, example_inputs=torch.zeros(1, 4))
    assert module.training
    rows = torch.randn(5, 4)
    expected = module.eval()(rows).detach().numpy()
    np.testing.assert_allclose(next(iter(session.run(rows).values())), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(lepton_ai.UsageError, match="example_inputs"):
        Session(module)


def test_scikit_learn():
    linear_model = pytest.importorskip("sklearn.linear_model")
    rows = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
    classifier = linear_model.LogisticRegression().fit(rows, rows.sum(1) > 0)
    try:
        import skl2onnx  # noqa: F401
    except ImportError:
        with pytest.raises(lepton_ai.MissingPackageError, match="pip install skl2onnx"):
            Session(classifier)
        return
    try:
        session = Session(classifier)
    except lepton_ai.UnsupportedError as error:
        pytest.skip(str(error))
    assert (session.predict(rows) == classifier.predict(rows)).mean() > 0.99
