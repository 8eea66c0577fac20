"""Exports of Keras models on TensorFlow, for real_models.py.

    pip install tensorflow-cpu keras tf2onnx onnx onnxruntime
"""

import os

APPLICATIONS = {"MobileNet": 96, "MobileNetV2": 96, "MobileNetV3Small": 96, "EfficientNetB0": 64, "EfficientNetV2B0": 64,
                "ResNet50V2": 64, "DenseNet121": 64, "InceptionV3": 96, "Xception": 96, "NASNetMobile": 224,
                "VGG16": 64}
"""ConvNeXt is exported with Erfc, which ONNX does not have."""


def empty_lists():
    """tf2onnx names attributes that are empty lists; onnx no longer guesses of what type."""
    import onnx

    make = onnx.helper.make_attribute

    def typed(key, value, *rest, **more):
        empty = isinstance(value, (list, tuple)) and not value
        return make(key, value, *rest, **({"attr_type": onnx.AttributeProto.INTS} | more if empty else more))

    onnx.helper.make_attribute = typed


def exported(build, path):
    """Writes the model that `build` makes of Keras; rows are as many as come."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    empty_lists()
    keras.utils.set_random_seed(0)
    model = build(keras)
    # Keras exports models that have answered once.
    model(keras.ops.zeros([1, *model.input_shape[1:]], model.inputs[0].dtype))
    model.export(str(path), format="onnx", verbose=False)


def made(build):
    return lambda path, _exporter: exported(build, path)


def application(name, size):
    return made(lambda keras: getattr(keras.applications, name)(weights=None, input_shape=(size, size, 3), classes=10))


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
