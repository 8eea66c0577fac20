"""What users do with a Keras model while it is under compression, each way with its answer."""

from __future__ import annotations

import importlib.util
import os
import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest

import lepton_ai
from lepton_ai import LeptonAI, Session

if "KERAS_BACKEND" not in os.environ and importlib.util.find_spec("tensorflow") is None:
    os.environ["KERAS_BACKEND"] = "torch"
keras = pytest.importorskip("keras")
layers = keras.layers
BACKEND = keras.backend.backend()


@pytest.fixture(scope="module")
def task():
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(512, 16)).astype(np.float32)
    return rows, (rows @ generator.normal(size=(16, 4))).argmax(1)


def network(optimizer=None, **compiled):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((16,)), layers.Dense(128, activation="relu"), layers.Dense(64, activation="relu"),
                              layers.Dense(4, activation="softmax")])
    model.compile(optimizer or keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy", metrics=["accuracy"], **compiled)
    return model


def zeros(layer):
    return float((keras.ops.convert_to_numpy(layer._kernel) == 0).mean())


def answers_alike(lepton, model, rows, path, atol=1e-4):
    """The exported file answers as the model does; the report of the export."""
    report = lepton.export(path)
    np.testing.assert_allclose(Session(path).predict(rows), model.predict(rows, verbose=0), atol=atol)
    return report


def test_the_five_lines(tmp_path):
    generator = np.random.default_rng(0)
    images = generator.random((192, 24, 24, 3)).astype(np.float32)
    labels = (images[:, :12].mean((1, 2, 3)) > images[:, 12:].mean((1, 2, 3))).astype(np.float32)
    images[labels == 1, :12] += 0.3
    train_data, val_data, test_data = images[:128], images[128:160], images[160:]
    train_labels, val_labels, test_labels = labels[:128], labels[128:160], labels[160:]
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((24, 24, 3)), layers.Conv2D(32, 3, activation="relu"), layers.MaxPooling2D(),
                              layers.Flatten(), layers.Dense(128, activation="relu"), layers.Dense(1, activation="sigmoid")])

    model.compile(optimizer='adam', loss='binary_crossentropy', metrics=['accuracy'])
    lepton_ai = LeptonAI(model)
    lepton_ai.compress(100)          # size ratio
    model.fit(train_data, train_labels, epochs=10, validation_data=(val_data, val_labels), verbose=0)
    loss, accuracy = model.evaluate(test_data, test_labels, verbose=0)

    assert accuracy > 0.9
    report = answers_alike(lepton_ai, model, test_data, tmp_path / "model.lepton", 1e-3)
    assert report.file_bytes <= 4 * model.count_params() / 100
    measured = lepton_ai.report((test_data, test_labels), time_s=0.05)
    shown = str(measured)
    assert all(word in shown for word in ("accuracy", "recall")), shown


def test_a_saved_model_loads_where_lepton_is_not(task, tmp_path):
    model = network()
    LeptonAI(model).compress(20)
    model.fit(*task, batch_size=64, epochs=4, verbose=0)
    for name in ("m.keras", "m.h5"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.save(tmp_path / name)
    np.save(tmp_path / "rows.npy", task[0])
    np.save(tmp_path / "answers.npy", model.predict(task[0], verbose=0))
    (tmp_path / "load.py").write_text(
        "import sys\nsys.modules['lepton_ai'] = None\nimport keras, numpy as np\n"
        "for name in ('m.keras', 'm.h5'):\n"
        "    model = keras.models.load_model(name, compile=False)\n"
        "    found = model.predict(np.load('rows.npy'), verbose=0)\n"
        "    np.testing.assert_allclose(found, np.load('answers.npy'), rtol=1e-4, atol=1e-5)\n")
    ran = subprocess.run([sys.executable, "load.py"], cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


def test_pickled_models_are_plain(task):
    model = network()
    LeptonAI(model).compress(8)
    model.fit(*task, epochs=1, verbose=0)
    again = pickle.loads(pickle.dumps(model))
    assert type(again) is keras.Sequential and type(again.layers[0]) is layers.Dense
    np.testing.assert_allclose(again.predict(task[0], verbose=0), model.predict(task[0], verbose=0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["generator", "sequence", "tf.data", "validation_split", "weights", "jit", "eager", "several"])
def test_every_way_to_fit(task, tmp_path, kind):
    if kind == "several" and BACKEND == "torch":
        pytest.skip("Keras on PyTorch does one step at a time")
    rows, labels = task
    compiled = {"jit": {"jit_compile": BACKEND != "torch"}, "eager": {"run_eagerly": True}, "several": {"steps_per_execution": 3}}
    model = network(**compiled.get(kind, {}))
    lepton = LeptonAI(model).compress(30)
    options = {"epochs": 6, "verbose": 0}
    if kind == "generator":
        def endless():
            while True:
                for at in range(0, 512, 64):
                    yield rows[at : at + 64], labels[at : at + 64]
        model.fit(endless(), steps_per_epoch=8, **options)
    elif kind == "sequence":
        class Batches(keras.utils.PyDataset):
            def __len__(self):
                return 8
            def __getitem__(self, at):
                return rows[at * 64 : at * 64 + 64], labels[at * 64 : at * 64 + 64]
        model.fit(Batches(), **options)
    elif kind == "tf.data":
        data = pytest.importorskip("tensorflow").data.Dataset.from_tensor_slices((rows, labels)).batch(64)
        model.fit(data, validation_data=data, **options)
    elif kind == "validation_split":
        model.fit(rows, labels, batch_size=56, validation_split=0.125, **options)
    elif kind == "weights":
        model.fit(rows, labels, batch_size=64, class_weight={0: 1.0, 1: 2.0, 2: 1.0, 3: 1.0}, **options)
    else:
        model.fit(rows, labels, batch_size=64, **options)
    report = answers_alike(lepton, model, rows, tmp_path / "m.lepton")
    assert report.steps_done == report.steps_total == 48
    assert zeros(model.layers[1]) > 0.8 and not any("more steps" in note for note in report.notes)


def test_a_fit_of_unknown_length_asks_for_steps(task):
    rows, labels = task
    model = network()
    LeptonAI(model).compress(30)

    def batches():
        yield rows, labels

    with pytest.raises(lepton_ai.UsageError, match="(?s)how many steps.*give steps"):
        model.fit(batches(), verbose=0)


def test_fitting_twice_goes_on(task, tmp_path):
    model = network()
    lepton = LeptonAI(model).compress(30, steps=64)
    model.fit(*task, batch_size=64, epochs=4, verbose=0)
    half = zeros(model.layers[1])
    assert any("13 more steps" in note for note in lepton.report().notes), lepton.report().notes
    model.fit(*task, batch_size=64, epochs=4, verbose=0)
    assert 0.1 < half < zeros(model.layers[1]) and zeros(model.layers[1]) > 0.85
    model.fit(*task, batch_size=64, epochs=1, verbose=0)
    report = answers_alike(lepton, model, task[0], tmp_path / "m.lepton")
    assert report.steps_done == 72 and zeros(model.layers[1]) > 0.85


@pytest.mark.parametrize("name", ["ema", "accumulation", "scaled", "sgd", "schedule", "clipped"])
def test_optimisers(task, tmp_path, name):
    adam = keras.optimizers.Adam
    optimizer = {
        "ema": lambda: adam(3e-3, use_ema=True, ema_momentum=0.9),
        "accumulation": lambda: adam(3e-3, gradient_accumulation_steps=2),
        "scaled": lambda: keras.optimizers.LossScaleOptimizer(adam(3e-3)),
        "sgd": lambda: keras.optimizers.SGD(0.05, momentum=0.9),
        "schedule": lambda: adam(keras.optimizers.schedules.CosineDecay(3e-3, 96)),
        "clipped": lambda: keras.optimizers.AdamW(3e-3, global_clipnorm=1.0),
    }[name]()
    model = network(optimizer)
    lepton = LeptonAI(model).compress(30)
    model.fit(*task, batch_size=64, epochs=12, verbose=0)
    report = answers_alike(lepton, model, task[0], tmp_path / "m.lepton")
    assert report.steps_done == 96 and zeros(model.layers[1]) > 0.85, report
    assert (model.predict(task[0], verbose=0).argmax(1) == task[1]).mean() > 0.35


def test_callbacks_of_the_user(task, tmp_path):
    model = network()
    lepton = LeptonAI(model).compress(30)
    saved = keras.callbacks.ModelCheckpoint(str(tmp_path / "best.keras"), save_best_only=True, monitor="val_loss")
    early = keras.callbacks.EarlyStopping(monitor="val_loss", patience=100, restore_best_weights=True, start_from_epoch=0)
    model.fit(*task, batch_size=64, epochs=8, validation_data=task, callbacks=[saved, early], verbose=0)
    loaded = keras.models.load_model(tmp_path / "best.keras")
    assert type(loaded) is keras.Sequential
    # Whatever epoch was the best one, what is exported is as small as what was trained for.
    assert zeros(model.layers[1]) > 0.85
    answers_alike(lepton, model, task[0], tmp_path / "m.lepton")


def test_a_training_that_ends_early_says_what_is_missing(task, tmp_path):
    model = network()
    lepton = LeptonAI(model).compress(100)

    class Enough(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = epoch == 1

    model.fit(*task, batch_size=64, epochs=10, callbacks=[Enough()], verbose=0)
    report = answers_alike(lepton, model, task[0], tmp_path / "m.lepton")
    assert any("40 more steps" in note for note in report.notes), report.notes


def test_an_interrupted_fit_can_be_exported(task, tmp_path):
    model = network()
    lepton = LeptonAI(model).compress(30)

    class Interrupt(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 5:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.fit(*task, batch_size=64, epochs=4, callbacks=[Interrupt()], verbose=0)
    report = answers_alike(lepton, model, task[0], tmp_path / "m.lepton")
    assert report.steps_done == 6 and any("more steps" in note for note in report.notes)
    model.fit(*task, batch_size=64, epochs=4, verbose=0)
    assert zeros(model.layers[1]) > 0.8


@pytest.mark.skipif(BACKEND != "jax", reason="only JAX gives the weights away")
def test_a_step_that_took_the_weights_along_says_so(task, tmp_path):
    model = network()
    lepton = LeptonAI(model).compress(30)

    class Interrupt(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if batch == 5:
                for value in self.model._jax_state["trainable_variables"]:
                    value.delete()
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.fit(*task, batch_size=64, epochs=4, callbacks=[Interrupt()], verbose=0)
    with pytest.raises(lepton_ai.UsageError, match="(?s)broken off.*load"):
        lepton.export(tmp_path / "m.lepton")


def test_exports_before_the_training_say_so(task, tmp_path):
    model = network()
    lepton = LeptonAI(model).compress(100)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = answers_alike(lepton, model, task[0], tmp_path / "m.lepton")
    assert report.steps_done == 0 and any("not been trained" in note for note in report.notes), report.notes
    assert report.file_ratio < 100


def test_a_tiny_network_is_warned_of():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(4)])
    with pytest.warns(UserWarning, match="20 weights|16 weights.*outweigh"):
        LeptonAI(model).compress(100)


def test_compressing_before_compiling(task, tmp_path):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((16,)), layers.Dense(128, activation="relu"), layers.Dense(4, activation="softmax")])
    lepton = LeptonAI(model).compress(20)
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(*task, batch_size=64, epochs=8, verbose=0)
    assert lepton.report().steps_done == 64 and zeros(model.layers[0]) > 0.5
    answers_alike(lepton, model, task[0], tmp_path / "m.lepton")


def test_batches_of_the_users_own_loop(task, tmp_path):
    model = network()
    lepton = LeptonAI(model).compress(30, steps=64)
    for step in range(64):
        at = step % 8 * 64
        model.train_on_batch(task[0][at : at + 64], task[1][at : at + 64])
    report = answers_alike(lepton, model, task[0], tmp_path / "m.lepton")
    assert report.steps_done == 64 and zeros(model.layers[1]) > 0.85


def test_functional_nested_and_subclassed_models(task, tmp_path):
    keras.utils.set_random_seed(1)
    x = keras.Input((16,))
    shared = layers.Dense(16, activation="relu", name="shared")
    inner = keras.Sequential([keras.Input((16,)), layers.Dense(64, activation="relu", name="inside")], name="inner")
    functional = keras.Model(x, layers.Dense(4, activation="softmax")(inner(shared(shared(x)))))

    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.first, self.last = layers.Dense(64, activation="relu"), layers.Dense(4, activation="softmax")

        def call(self, inputs):
            return self.last(self.first(inputs))

    own = Own()
    own(np.zeros((1, 16), np.float32))
    for model, count in ((functional, 3), (own, 2)):
        model.compile("adam", "sparse_categorical_crossentropy")
        lepton = LeptonAI(model).compress(15)
        model.fit(*task, batch_size=64, epochs=6, verbose=0)
        report = lepton.report()
        assert len(report.layers) == count and report.steps_done == 48
        assert min(layer.density for layer in report.layers) < 0.5
    assert type(own).__name__ == "Own" and isinstance(own, Own)
    if BACKEND == "tensorflow" and importlib.util.find_spec("tf2onnx") is None or BACKEND == "jax":
        with pytest.raises(lepton_ai.MissingPackageError):
            lepton.export(tmp_path / "own.lepton")


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision(task, tmp_path, policy):
    keras.utils.set_random_seed(1)
    dense = [layers.Dense(n, activation=a, dtype=policy) for n, a in ((128, "relu"), (64, "relu"))]
    model = keras.Sequential([keras.Input((16,)), *dense, layers.Dense(4, activation="softmax", dtype="float32")])
    model.compile(keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy")
    lepton = LeptonAI(model).compress(30)
    model.fit(*task, batch_size=64, epochs=8, verbose=0)
    assert lepton.report().steps_done == 64 and zeros(model.layers[1]) > 0.85
    report = lepton.export(tmp_path / "m.lepton")
    # The file computes in float32 what the model computes in half precision.
    np.testing.assert_allclose(Session(report.file).predict(task[0]), model.predict(task[0], verbose=0), atol=0.05)


def test_frozen_layers_are_not_pruned(task, tmp_path):
    model = network()
    model.layers[0].trainable = False
    model.compile("adam", "sparse_categorical_crossentropy")
    lepton = LeptonAI(model).compress(20)
    model.fit(*task, batch_size=64, epochs=6, verbose=0)
    assert zeros(model.layers[0]) == 0 and zeros(model.layers[1]) > 0.5
    answers_alike(lepton, model, task[0], tmp_path / "m.lepton")
