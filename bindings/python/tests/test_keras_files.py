"""Keras' own files, read by h5py alone, and functional models."""

from __future__ import annotations

import subprocess
import sys
import zipfile

import numpy as np
import pytest

import lepton_ai
from lepton_ai import Session

h5py = pytest.importorskip("h5py")


def functional(keras):
    """Branches, shortcuts, depthwise convolutions and layers with options."""
    keras.utils.set_random_seed(3)
    layers = keras.layers
    image, number = keras.Input((12, 10, 3), name="image"), keras.Input((4,), name="number")
    x = layers.Rescaling(2.0, -1.0)(image)
    x = layers.ZeroPadding2D(((1, 0), (2, 1)))(x)
    x = layers.Conv2D(8, 3, strides=2, use_bias=False)(x)
    x = layers.BatchNormalization()(x)
    x = layers.ReLU(6.0)(x)
    y = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2, activation="relu")(x)
    y = layers.Conv2D(8, 1)(y)
    x = layers.Add()([x, layers.LeakyReLU(0.1)(y)])
    x = layers.Concatenate()([layers.GlobalAveragePooling2D()(x), layers.GlobalMaxPooling2D()(x), number])
    x = layers.BatchNormalization(scale=False)(layers.Dense(16, activation="elu")(x))
    first = layers.Dense(3, activation="softmax", name="first")(layers.Dropout(0.2)(x))
    second = layers.Reshape((2, 2), name="second")(layers.Dense(4, activation="tanh")(x))
    model = keras.Model([image, number], [first, second])
    for layer in model.layers:
        layer.set_weights([w + 0.1 * np.random.default_rng(i).random(w.shape).astype(w.dtype)
                           for i, w in enumerate(layer.get_weights())])
    return model


@pytest.mark.parametrize("suffix", ["", "keras", "h5"])
def test_functional_models(suffix, tmp_path):
    keras = pytest.importorskip("keras")
    model = functional(keras)
    generator = np.random.default_rng(0)
    rows = {"image": generator.random((5, 12, 10, 3), np.float32), "number": generator.random((5, 4), np.float32)}
    expected = model.predict(rows, verbose=0)
    source = model
    if suffix:
        source = tmp_path / f"model.{suffix}"
        model.save(source)
    session = Session(source)
    found = session.run(rows)
    assert list(found) == ["first", "second"] and [spec.name for spec in session.inputs] == ["image", "number"]
    for one, other in zip(found.values(), expected):
        np.testing.assert_allclose(one, other, atol=1e-5)
    assert "conv2d" in str(session.model) and "depthwise_conv2d" in str(session.model)


def test_files_of_keras_2(asset):
    """ResNet-8 of MLPerf Tiny against its TFLite file, and a Sequential without Keras in the process."""
    folder = asset("image/mlperf_tiny_resnet8")
    with np.load(folder / "ic01_200_u8_nhwc.npz") as file:
        images = next(file[key] for key in file.files if file[key].ndim == 4)[:50].astype(np.float32)
    found = lepton_ai.Session(lepton_ai.load_keras(folder / "pretrainedResnet.h5")).predict(images)
    other = lepton_ai.Session(next(path for path in sorted(folder.glob("*.tflite")) if "quant" not in path.name))
    expected = np.concatenate([other.predict(images[at : at + 1]) for at in range(len(images))])
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_neither_keras_nor_tensorflow_is_loaded(asset):
    path = asset("tabular/hand_gesture/keypoint_classifier.hdf5")
    code = f"""
import sys, numpy as np, lepton_ai
found = lepton_ai.Session({str(path)!r}).predict(np.random.default_rng(0).random((6, 42)).astype(np.float32))
other = lepton_ai.Session({str(path.with_suffix('.tflite'))!r})
rows = np.random.default_rng(0).random((6, 42)).astype(np.float32)
np.testing.assert_allclose(found, np.concatenate([other.predict(rows[i:i+1]) for i in range(6)]), atol=1e-5)
assert not {{"keras", "tensorflow", "onnx"}} & set(sys.modules), "loaded"
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_files_that_are_none(tmp_path):
    (tmp_path / "a.h5").write_bytes(b"nothing")
    (tmp_path / "b.keras").write_bytes(b"nothing")
    with zipfile.ZipFile(tmp_path / "c.keras", "w") as archive:
        archive.writestr("config.json", "{}")
    with h5py.File(tmp_path / "d.h5", "w") as file:
        file.attrs["model_config"] = '{"class_name": "Sequential", "config": {"layers": []}}'
        file.create_group("model_weights")
    for name in ("a.h5", "b.keras", "c.keras", "none.h5", "none.keras"):
        with pytest.raises((lepton_ai.FileError, lepton_ai.ModelError)):
            lepton_ai.load_keras(tmp_path / name)
    if "keras" not in sys.modules:
        with pytest.raises(lepton_ai.UnsupportedError, match="no layers"):
            lepton_ai.load_keras(tmp_path / "d.h5")


def test_layers_that_are_not_known_go_through_keras(tmp_path):
    keras = pytest.importorskip("keras")
    model = keras.Sequential([keras.Input((6, 4)), keras.layers.LSTM(5), keras.layers.Dense(2)])
    model.save(tmp_path / "m.h5")
    code = f"import lepton_ai; lepton_ai.load_keras({str(tmp_path / 'm.h5')!r})"
    failed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "UnsupportedError" in failed.stderr and "LSTM" in failed.stderr
