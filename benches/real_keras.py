"""Exports of Keras models on TensorFlow, for real_models.py.

    pip install tensorflow-cpu keras tf2onnx onnx onnxruntime
    python benches/real_keras.py      # LEPTON_RELEASE: folder of the binary `lepton`

Alone, it prints what ONNX Runtime has no part in: `.tflite` files that TensorFlow converts, beside its interpreter, and
exports with an operator that ONNX does not have, beside Keras itself.
"""

import os
import pathlib
import subprocess
import tempfile

import numpy as np

APPLICATIONS = {"MobileNet": 96, "MobileNetV2": 96, "MobileNetV3Small": 96, "EfficientNetB0": 64, "EfficientNetV2B0": 64,
                "ResNet50": 64, "ResNet50V2": 64, "DenseNet121": 64, "InceptionV3": 96, "Xception": 96, "NASNetMobile": 224,
                "VGG16": 64}
"""Name and size of images. ConvNeXt is exported with Erfc, which ONNX does not have: see `BESIDE_KERAS`."""

BESIDE_KERAS = {"ConvNeXtTiny": 64}
CONVERTED = {"MobileNetV2": 96, "MobileNetV3Small": 96}


def empty_lists():
    """tf2onnx names attributes that are empty lists; onnx no longer guesses of what type."""
    import onnx

    make = onnx.helper.make_attribute

    def typed(key, value, *rest, **more):
        empty = isinstance(value, (list, tuple)) and not value
        return make(key, value, *rest, **({"attr_type": onnx.AttributeProto.INTS} | more if empty else more))

    onnx.helper.make_attribute = typed


def grouped_convolutions_inlined():
    """Keras compiles these apart, because TensorFlow runs them no other way on a CPU, and tf2onnx leaves the call as it
    is. What is exported is only traced."""
    import tensorflow as tf

    function = tf.function
    tf.function = lambda *given, **options: (lambda body: body) if options == {"jit_compile": True} else function(
        *given, **options)


def built(build):
    """The model that `build` makes of Keras, which has answered once: Keras exports no other."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    keras.utils.set_random_seed(0)
    model = build(keras)
    model(keras.ops.zeros([1, *model.input_shape[1:]], model.inputs[0].dtype))
    normalised = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    if normalised and len(model.input_shape) == 4:
        # Statistics of a batch: with those of an untrained network nothing of the image comes through.
        for layer in normalised:
            layer.momentum = 0.0
        model(np.random.default_rng(1).random((8, *model.input_shape[1:]), np.float32), training=True)
    return model


def exported(build, path):
    """Writes a model; rows are as many as come."""
    model = built(build)
    empty_lists()
    model.export(str(path), format="onnx", verbose=False)


def made(build):
    return lambda path, _exporter: exported(build, path)


def network(name, size, **options):
    """A network without its softmax, which makes tenths of the small logits that random weights give."""
    return lambda keras: getattr(keras.applications, name)(
        weights=None, input_shape=(size, size, 3), classes=10, classifier_activation=None, **options)


def application(name, size):
    return made(network(name, size))


def spoken(keras):
    """Commands from a second of sound's spectra: convolutions over time, then two recurrent layers."""
    layers = keras.layers
    return keras.Sequential([
        keras.Input((98, 40)), layers.Conv1D(32, 5, strides=2, padding="same", activation="relu"),
        layers.BatchNormalization(), layers.Bidirectional(layers.GRU(24, return_sequences=True)),
        layers.LSTM(24), layers.Dense(12, activation="softmax")])


def written(keras):
    """A text's class from ids of words."""
    layers = keras.layers
    return keras.Sequential([
        keras.Input((32,), dtype="int64"), layers.Embedding(100, 16), layers.Bidirectional(layers.LSTM(16)),
        layers.Dropout(0.5), layers.Dense(3, activation="softmax")])


def attending(keras):
    """Two blocks of a transformer."""
    layers = keras.layers
    # The exact one is exported as Erfc, which ONNX does not have.
    gelu = lambda x: keras.activations.gelu(x, approximate=True)  # noqa: E731
    given = keras.Input((32,), dtype="int64")
    x = layers.Embedding(100, 32)(given)
    for _ in range(2):
        x = layers.LayerNormalization()(layers.Add()([x, layers.MultiHeadAttention(4, 8)(x, x)]))
        inner = layers.Dense(32)(layers.Dense(64, activation=gelu)(x))
        x = layers.LayerNormalization()(layers.Add()([x, inner]))
    return keras.Model(given, layers.Dense(4, activation="softmax")(layers.GlobalAveragePooling1D()(x)))


def segmenting(keras):
    """A small U-Net: down by strides, up by transposed convolutions, edges joined."""
    layers = keras.layers
    given = keras.Input((64, 64, 3))
    first = layers.Conv2D(16, 3, padding="same", activation="relu")(given)
    second = layers.Conv2D(32, 3, strides=2, padding="same", activation="relu")(first)
    third = layers.SeparableConv2D(64, 3, strides=2, padding="same", activation="swish")(second)
    up = layers.Concatenate()([layers.Conv2DTranspose(32, 3, strides=2, padding="same")(third), second])
    up = layers.Concatenate()([layers.UpSampling2D(interpolation="bilinear")(up), first])
    return keras.Model(given, layers.Conv2D(2, 1, activation="softmax")(up))


def fraud(keras):
    """Columns of numbers, normalised, through three layers."""
    layers = keras.layers
    return keras.Sequential([
        keras.Input((30,)), layers.BatchNormalization(), layers.Dense(64, activation="selu"),
        layers.Dense(32, activation="leaky_relu"), layers.Dense(1, activation="sigmoid")])


def keras_models():
    """Name, exporter and maker of every row."""
    rows = [(name, "keras", application(name, size)) for name, size in APPLICATIONS.items()]
    own = {"speech, Conv1D + GRU + LSTM": spoken, "text, Embedding + LSTM": written, "transformer": attending,
           "U-Net": segmenting, "fraud, Dense": fraud}
    return rows + [(name, "keras", made(build)) for name, build in own.items()]


def answer(path, name, image, folder):
    """What the program makes of an image."""
    lepton = pathlib.Path(os.environ.get("LEPTON_RELEASE", "target/release")) / "lepton"
    given, made = folder / "in.npz", folder / "out.npz"
    np.savez(given, **{name: image})
    subprocess.run([lepton, "run", path, "--input", given, "--output", made], check=True, stdout=subprocess.DEVNULL)
    outputs = np.load(made)
    return outputs[outputs.files[0]]


def beside_interpreter(model, images, path, whole):
    """Converts a model, with integers throughout where `whole`; the difference from the interpreter."""
    import tensorflow as tf

    folder = path.with_suffix("")
    model.export(str(folder), format="tf_saved_model", verbose=False)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder))
    if whole:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([image[None]] for image in images)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    path.write_bytes(converter.convert())
    interpreter = tf.lite.Interpreter(str(path), num_threads=1)
    signature = interpreter.get_signature_list()["serving_default"]["inputs"][0]
    interpreter.allocate_tensors()
    given, made = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    image = images[:1]
    if whole:
        scale, zero = given["quantization"]
        image = np.clip(np.round(image / scale) + zero, -128, 127).astype(np.int8)
    interpreter.set_tensor(given["index"], image)
    interpreter.invoke()
    expected = interpreter.get_tensor(made["index"])
    have = answer(path, signature, image, path.parent)
    worst = np.abs(have.astype(np.float64) - expected).max()
    return f"{worst:.0f} steps" if whole else f"{worst / np.abs(expected).max():.1e}"


def main():
    images = np.random.default_rng(0).random((8, 224, 224, 3), np.float32)
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        for name, size in BESIDE_KERAS.items():
            # Its preprocessing is exported as inputs without values.
            model, path = built(network(name, size, include_preprocessing=False)), folder / f"{name}.onnx"
            image = images[:1, :size, :size]
            expected = np.asarray(model(image))
            empty_lists()
            grouped_convolutions_inlined()
            model.export(str(path), format="onnx", verbose=False)
            have = answer(path, model.inputs[0].name, image, folder)
            print(f"| {name} | keras, with Erfc | {np.abs(have - expected).max() / np.abs(expected).max():.1e} | Keras |")
        for name, size in CONVERTED.items():
            for whole in (False, True):
                model, path = built(network(name, size)), folder / f"{name}-{whole}.tflite"
                worst = beside_interpreter(model, images[:, :size, :size], path, whole)
                print(f"| {name} | tflite, {'int8' if whole else 'float'} | {worst} | the interpreter |", flush=True)


if __name__ == "__main__":
    main()
