"""Keras 3 models under compression while their own ``fit`` trains them."""

from __future__ import annotations

import importlib.util
import os

import numpy as np
import pytest

import lepton_ai
from lepton_ai import LeptonAI, Session

if "KERAS_BACKEND" not in os.environ and importlib.util.find_spec("tensorflow") is None:
    os.environ["KERAS_BACKEND"] = "torch"
keras = pytest.importorskip("keras")


@pytest.fixture(scope="module")
def task():
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(1024, 16)).astype(np.float32)
    return rows, (rows @ generator.normal(size=(16, 4))).argmax(1)


def network(optimizer=None):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((16,)), keras.layers.Dense(128, activation="relu"),
                              keras.layers.Dense(64, activation="relu"), keras.layers.Dense(4)])
    model.compile(optimizer or keras.optimizers.Adam(3e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def zeros(layer):
    return float((keras.ops.convert_to_numpy(layer._kernel) == 0).mean())


def test_fit_trains_under_the_compression(task, tmp_path):
    model = network()
    names = [w.path for w in model.weights]
    lepton = LeptonAI(model).compress(20)
    assert type(model).__name__ == "Sequential" and [w.path for w in model.weights] == names
    seen = []
    model.fit(*task, batch_size=64, epochs=20, verbose=0,
              callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: seen.append(zeros(model.layers[1])))])
    share, report = lepton._attachment.shares[model.layers[1].name], lepton.report()
    assert report.steps_total == report.steps_done == 320
    # Nothing is taken in the first tenth, and what is left at the end is what was fitted, or less of idle units.
    assert seen[:2] == [0.0, 0.0] and seen[2:6] == sorted(seen[2:6]) and seen[-1] >= 1 - share.density - 2e-3
    accuracy = (model.predict(task[0], verbose=0).argmax(1) == task[1]).mean()
    assert accuracy > 0.9
    report = lepton.export(tmp_path / "model.lepton", calibration=task[0][:256])
    assert report.file_bytes == (tmp_path / "model.lepton").stat().st_size < report.dense_bytes
    found = Session(tmp_path / "model.lepton").predict(task[0]).argmax(1)
    assert (found == task[1]).mean() > accuracy - 0.03
    assert (model.predict(task[0], verbose=0).argmax(1) == task[1]).mean() == accuracy


def test_the_file_is_as_small_as_asked(tmp_path):
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(512, 300)).astype(np.float32)
    labels = (rows[:, :40] @ generator.normal(size=(40, 4))).argmax(1)
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((300,)), keras.layers.Dense(1000, activation="relu"),
                              keras.layers.Dense(300, activation="relu"), keras.layers.Dense(4)])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    lepton = LeptonAI(model).compress(50)
    model.fit(rows, labels, epochs=5, verbose=0)
    assert 50 <= lepton.export(tmp_path / "model.lepton").file_ratio <= 53


def test_reports_measure_before_and_after(task, tmp_path):
    model = network()
    model.fit(*task, epochs=3, verbose=0)
    before = (model.predict(task[0], verbose=0).argmax(1) == task[1]).mean()
    lepton = LeptonAI(model).compress(4)
    model.fit(*task, epochs=1, verbose=0)
    after = model.predict(task[0], verbose=0)
    lepton.export(tmp_path / "model.lepton")
    report = lepton.report(task, time_s=0.05)
    np.testing.assert_array_equal(model.predict(task[0], verbose=0), after)
    assert report.versions.before.metrics["top1"].value == pytest.approx(before, abs=2e-3)
    assert report.versions.after.metrics["top1"].value == pytest.approx((after.argmax(1) == task[1]).mean(), abs=2e-3)
    assert report.to_dict()["versions"]["after"]["file_bytes"] == report.file_bytes


@pytest.mark.parametrize("last", ["logits", "softmax", "linear"])
def test_the_model_as_it_was_teaches(task, last):
    rows, labels = task
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((16,)), keras.layers.Dense(64, activation="relu"),
                              keras.layers.Dense(4, activation="softmax" if last == "softmax" else None)])
    loss = {"logits": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            "softmax": "sparse_categorical_crossentropy", "linear": "mse"}[last]
    target = np.eye(4, dtype=np.float32)[labels] if last == "linear" else labels
    wrong = np.eye(4, dtype=np.float32)[(labels + 1) % 4] if last == "linear" else (labels + 1) % 4
    model.compile(keras.optimizers.Adam(3e-3), loss)
    model.fit(rows, target, epochs=8, verbose=0)
    before = model.predict(rows, verbose=0).argmax(1)
    # With wrong labels, and nothing but the teacher in the loss, it stays as right as it was.
    lepton = LeptonAI(model).compress(4, distil=1.0)
    model.fit(rows, wrong, epochs=2, verbose=0)
    assert (model.predict(rows, verbose=0).argmax(1) == before).mean() > 0.95
    with pytest.raises(lepton_ai.UsageError, match="nobody"):
        lepton.distilled(0.0, before, rows)


def test_saved_models_are_plain(task, tmp_path):
    model = network()
    LeptonAI(model).compress(8)
    model.fit(*task, epochs=1, verbose=0)
    expected = model.predict(task[0], verbose=0)
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert type(loaded) is keras.Sequential and type(loaded.layers[0]) is keras.layers.Dense
    np.testing.assert_allclose(loaded.predict(task[0], verbose=0), expected, rtol=1e-4, atol=1e-5)
    model.save_weights(tmp_path / "m.weights.h5")
    model.load_weights(tmp_path / "m.weights.h5")
    np.testing.assert_allclose(model.predict(task[0], verbose=0), expected, rtol=1e-4, atol=1e-5)
    clone = keras.models.clone_model(model)
    assert type(clone.layers[0]) is keras.layers.Dense


def test_compiling_again_does_not_start_the_schedule_again(task):
    model = network()
    LeptonAI(model).compress(50)
    model.fit(*task, batch_size=64, epochs=5, verbose=0)
    before = zeros(model.layers[1])
    model.compile(keras.optimizers.SGD(1e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(*task, batch_size=64, epochs=1, verbose=0)
    assert zeros(model.layers[1]) == pytest.approx(before, abs=2e-3) and before > 0.9


def test_averaged_weights_are_masked_again(task):
    model = network(keras.optimizers.Adam(3e-3, use_ema=True))
    LeptonAI(model).compress(50)
    model.fit(*task, batch_size=64, epochs=4, verbose=0)
    assert zeros(model.layers[1]) > 0.9


@pytest.mark.parametrize("average", [True, False])
def test_the_training_ends_with_the_mean_of_its_last_tenth(task, average):
    model = network()
    LeptonAI(model).compress(50, average=average)
    found = []

    class Look(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if keras.backend.backend() == "jax":
                self.model.jax_state_sync()
            found.append(keras.ops.convert_to_numpy(model.layers[-1].bias))

    model.fit(*task, batch_size=64, epochs=5, verbose=0, callbacks=[Look()])
    steps = len(found)
    assert steps == 5 * -(-len(task[0]) // 64) and steps // 10 <= 12, "each of the last tenth counts"
    wanted = np.mean(found[-(steps // 10):], axis=0) if average else found[-1]
    bias = keras.ops.convert_to_numpy(model.layers[-1].bias)
    np.testing.assert_allclose(bias, wanted, rtol=1e-5, atol=1e-6)
    assert np.abs(found[-1] - found[-2]).max() > 1e-4, "it still moves"
    assert zeros(model.layers[1]) > 0.9


def test_constraints_of_the_user_stay():
    layer = keras.layers.Dense(4, kernel_constraint=keras.constraints.NonNeg())
    model = keras.Sequential([keras.Input((16,)), layer])
    model.compile("sgd", "mse")
    LeptonAI(model).compress(4)
    model.fit(np.ones((32, 16), np.float32), np.ones((32, 4), np.float32), verbose=0)
    assert keras.ops.convert_to_numpy(layer._kernel).min() >= 0


def test_convolutions(tmp_path):
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(8, 3), keras.layers.DepthwiseConv2D(3),
                              keras.layers.Flatten(), keras.layers.Dense(5)])
    rows = np.random.default_rng(0).random((64, 8, 8, 3)).astype(np.float32)
    expected = model.predict(rows, verbose=0)
    lepton = LeptonAI(model).compress(4)
    assert [layer.weights for layer in lepton.report().layers] == [216, 72, 640]
    lepton.export(tmp_path / "m.lepton", calibration=rows)
    found = Session(tmp_path / "m.lepton").predict(rows)
    np.testing.assert_allclose(found, expected, atol=0.05)
    assert not np.allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(found, model.predict(rows, verbose=0), atol=1e-4)
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    assert type(loaded.layers[1]) is keras.layers.DepthwiseConv2D
    np.testing.assert_allclose(loaded.predict(rows, verbose=0), found, atol=1e-4)


def test_depthwise_kernels_are_pruned_and_lie_on_the_grid():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((8, 8, 16)), keras.layers.DepthwiseConv2D(3, depth_multiplier=2),
                              keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3)])
    model.compile("adam", "mse")
    depthwise = model.layers[0]
    rows = np.random.default_rng(0).random((64, 8, 8, 16)).astype(np.float32)
    LeptonAI(model).compress(8, keep={depthwise.name: 0.5})
    seen = keras.ops.convert_to_numpy(depthwise.kernel)
    assert max(len(np.unique(channel)) for channel in seen.reshape(9, 32).T) <= 9
    steps = np.abs(seen).max((0, 1)) / 7
    np.testing.assert_allclose(seen / steps, np.rint(seen / steps), atol=1e-4)
    model.fit(rows, rows.mean((1, 2))[:, :3], epochs=3, verbose=0)
    assert float((keras.ops.convert_to_numpy(depthwise.kernel) == 0).mean()) >= 0.45


def test_steps_are_counted_as_fit_counts_them():
    from lepton_ai._inplace_keras import _steps_of

    base = {"x": np.zeros((100, 2)), "y": np.zeros(100), "epochs": 3, "initial_epoch": 0, "steps_per_epoch": None,
            "batch_size": None, "validation_split": 0.0}
    assert _steps_of(base) == 12
    assert _steps_of({**base, "batch_size": 10, "validation_split": 0.2}) == 24
    assert _steps_of({**base, "steps_per_epoch": 5, "initial_epoch": 1}) == 10
    assert _steps_of({**base, "x": iter([]), "y": None}) is None


def test_layers_that_are_left_are_named():
    model = keras.Sequential([keras.Input((6, 4)), keras.layers.LSTM(5), keras.layers.Dense(8)])
    assert [layer.weights for layer in LeptonAI(model).compress(4).report().layers] == [40]
    assert "LSTM" in LeptonAI(model).report().left[0][1] or "LSTMCell" in LeptonAI(model).report().left[0][1]


def test_what_makes_no_sense_is_refused():
    with pytest.raises(lepton_ai.UsageError, match="not built"):
        LeptonAI(keras.Sequential([keras.layers.Dense(3)])).compress(4)
    with pytest.raises(lepton_ai.UsageError, match="no Dense"):
        LeptonAI(keras.Sequential([keras.Input((3,)), keras.layers.ReLU()])).compress(4)


def test_the_file_answers_as_the_model_and_keeps_names(task, tmp_path):
    model = network()
    first = model.layers[0].name
    lepton = LeptonAI(model).compress(20, keep={first: 0.5})
    model.fit(*task, batch_size=64, epochs=10, verbose=0)
    report = lepton.export(tmp_path / "model.lepton")
    session = Session(tmp_path / "model.lepton")
    np.testing.assert_allclose(session.predict(task[0]), model.predict(task[0], verbose=0), atol=1e-4)
    # Units that the next layer no longer reads keep nothing.
    assert 0.02 < report.layers[0].density < 0.52 and report.layers[1].density < 0.3
    assert session.outputs[0].name == model.layers[-1].name and f"{first}/weights" in str(session.model)
    with pytest.raises(lepton_ai.UsageError, match="no compressed layer"):
        LeptonAI(network()).compress(20, keep={"nowhere": 0.5})
    with pytest.raises(lepton_ai.UsageError, match="share to keep"):
        other = network()
        LeptonAI(other).compress(20, keep={other.layers[0].name: 0.0})


def test_chains_of_layers_are_written_as_they_are(tmp_path):
    layers = keras.layers
    model = keras.Sequential([
        keras.Input((12, 10, 3)), layers.Conv2D(8, 3, strides=2, padding="same", activation="relu"),
        layers.BatchNormalization(), layers.Conv2D(4, 3, dilation_rate=2, use_bias=False, padding="same"), layers.ReLU(),
        layers.MaxPooling2D(2, padding="same"), layers.AveragePooling2D(2, strides=1, padding="same"), layers.Dropout(0.5),
        layers.Flatten(), layers.Dense(5, activation="tanh"), layers.Dense(3, activation="softmax")])
    rows = np.random.default_rng(0).random((7, 12, 10, 3)).astype(np.float32)
    model.layers[1].set_weights([w + 0.5 for w in model.layers[1].get_weights()])
    np.testing.assert_allclose(Session(model).predict(rows), model.predict(rows, verbose=0), atol=1e-5)


@pytest.mark.parametrize("compressed", [False, True])
def test_a_callback_converts_while_it_trains(task, tmp_path, compressed):
    from lepton_ai.keras import ConversionCallback

    model = network()
    if compressed:
        LeptonAI(model).compress(12)
    both = importlib.util.find_spec("tensorflow") and importlib.util.find_spec("tensorboard")
    log = str(tmp_path / "log") if both else None
    callback = ConversionCallback(every=16, validation=task, log_dir=log, runs=3)
    model.fit(*task, batch_size=64, epochs=4, verbose=0, callbacks=[callback])
    found = callback.conversions
    assert [c.step for c in found] == [16, 32, 48, 64] and all(c.latency_us > 0 for c in found)
    assert found[-1].metric > 0.7 and (not compressed or found[-1].file_bytes < found[0].file_bytes)
    if log:
        events = b"".join(path.read_bytes() for path in (tmp_path / "log").iterdir())
        assert events.count(b"lepton/file_bytes") == events.count(b"lepton/metric") == 4
    with pytest.raises(lepton_ai.UsageError, match="every"):
        ConversionCallback(every=0)
