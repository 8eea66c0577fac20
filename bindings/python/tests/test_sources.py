"""``optimize`` from a model of each library: the original and a candidate answer, on real sizes or small ones."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

import lepton_ai

# Limits far from what any candidate loses: which one is fastest is a matter of noise on so small a model.
QUICK = {"latency_time_s": 0.02, "progress": False, "max_drop": 10}


def task(rows=600, features=8):
    """Rows of numbers and one of three classes that a fixed matrix gives them."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(rows, features)).astype(np.float32)
    return x, (x @ generator.normal(size=(features, 3))).argmax(1)


def found(model, data, tmp_path, **options):
    """The frontier, after looking at what must hold of every one."""
    frontier = lepton_ai.optimize(model, data, out=tmp_path, **{**QUICK, **options})
    assert frontier.best is not None and frontier.met and len(frontier) >= 1
    assert frontier[0].latency_p50_us <= frontier[-1].latency_p50_us and list(frontier)[0] is frontier[0]
    assert frontier[:1] == [frontier[0]] and frontier[frontier.best.name] is frontier.best
    assert "&lt;svg" in frontier._repr_html_() and frontier.best.name in repr(frontier)
    answer = frontier.best.session().predict(data[0][:7])
    assert len(answer) == 7
    return frontier


def test_keras(tmp_path):
    keras = pytest.importorskip("keras")
    x, y = task()
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((8,), name="features"), keras.layers.Dense(64, activation="relu", name="hidden"),
                              keras.layers.Dense(3, activation="softmax", name="classes")])
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x, y, epochs=10, verbose=0)
    frontier = found(model, (x, y), tmp_path)
    text = str(lepton_ai.as_model(model))
    assert "hidden" in text and "classes" in text
    right = (model.predict(x, verbose=0).argmax(1) == y).mean()
    assert frontier["original"].estimates[0].value == pytest.approx(right, abs=0.05)
    model.save(tmp_path / "m.keras")
    pytest.importorskip("h5py")
    assert lepton_ai.evaluate(tmp_path / "m.keras", (x, y))[0].value == pytest.approx(right, abs=1e-6)


def test_torch(tmp_path):
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnx")
    x, y = task()
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 64), torch.nn.ReLU(), torch.nn.Linear(64, 3))
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(100):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(torch.from_numpy(x)), torch.from_numpy(y)).backward()
        optimizer.step()
    frontier = found(model, (x, y), tmp_path, example_inputs=torch.zeros(1, 8))
    assert frontier["original"].estimates[0].value > 0.9


def test_scikit_learn(tmp_path):
    network = pytest.importorskip("sklearn.neural_network")
    pytest.importorskip("skl2onnx")
    x, y = task()
    targets = (x[:, 0] + 0.5 * x[:, 1] ** 2).astype(np.float32)
    model = network.MLPRegressor(hidden_layer_sizes=(32,), random_state=0, max_iter=300).fit(x, targets)
    frontier = found(model, (x, targets[:, None]), tmp_path, metric="mse", max_drop=100)
    assert frontier["original"].estimates[0].metric == "mse"


def test_tflite(asset, tmp_path):
    table = np.genfromtxt(gzip.open(asset("tabular/hand_gesture/keypoint.csv.gz"), "rt"), delimiter=",", dtype=np.float32)
    data = table[:1000, 1:], table[:1000, 0].astype(np.int64)
    frontier = found(asset("tabular/hand_gesture/keypoint_classifier.tflite"), data, tmp_path)
    assert frontier["original"].estimates[0].value > 0.9


def test_onnx(asset, tmp_path):
    onnx = pytest.importorskip("onnx")
    folder = asset("finance/ulb_creditcard_sample")
    with np.load(folder / "fraud_mlp_test.npz") as file:
        arrays = {name: file[name] for name in file.files}
    rows = next(array for array in arrays.values() if array.ndim == 2)
    labels = next(array for array in arrays.values() if array.ndim == 1)
    found(onnx.load(folder / "fraud_mlp.onnx"), (rows, labels), tmp_path, metric="auc")
