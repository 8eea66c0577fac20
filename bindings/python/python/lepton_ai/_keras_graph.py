"""Keras models of common layers as ONNX, written from their configuration and weights, with their names.

Configurations are those of Keras 2 and 3, from a model or from a file, so that neither TensorFlow nor Keras is
needed to read one. What is not in the table here is left to Keras' own export.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _onnx

_ACTIVATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "linear": ("", {}), "relu": ("Relu", {}), "sigmoid": ("Sigmoid", {}), "tanh": ("Tanh", {}),
    "softmax": ("Softmax", {"axis": -1}), "softplus": ("Softplus", {}), "softsign": ("Softsign", {}),
    "elu": ("Elu", {}), "selu": ("Selu", {}), "hard_swish": ("HardSwish", {}),
}
"""Keras' activations, and ONNX's operators with their attributes."""

_OPSET = 17

Weights = Callable[[str], "list[npt.NDArray[Any]]"]
"""The weights of a layer by its name, in Keras' order."""


class Unknown(Exception):
    """A layer, or an option of it, that is not in the table."""


class Layer:
    """A layer while it is written."""

    def __init__(
        self, writer: _Writer, described: Mapping[str, Any], weights: Weights, given: list[str], rank: int
    ) -> None:
        self.config: Mapping[str, Any] = described["config"]
        self.name = str(self.config.get("name") or described["name"])
        self.weights = weights
        self.given = given
        self.rank = rank
        self.value = given[0] if given else ""
        self._writer = writer

    def get(self, key: str, default: Any = None) -> Any:
        """An option of the layer."""
        return self.config.get(key, default)

    def weight(self, name: str, array: Any) -> str:
        """Adds a weight; its full name."""
        full = f"{self.name}/{name}"
        self._writer.weights[full] = np.ascontiguousarray(array)
        return full

    def node(self, operator: str, *others: str, **attributes: Any) -> None:
        """Adds a node that takes what was made last, and makes what is next."""
        self.value = self._writer.node(operator, [self.value, *others], self.name, attributes)

    def channels_first(self) -> None:
        """From Keras' order of axes to ONNX's."""
        self.node("Transpose", perm=[0, 3, 1, 2])

    def channels_last(self) -> None:
        """Back."""
        self.node("Transpose", perm=[0, 2, 3, 1])

    def activation(self) -> None:
        """The activation in the configuration."""
        chosen = self.get("activation") or "linear"
        if not isinstance(chosen, str):
            chosen = str(chosen.get("config", chosen.get("class_name", "")))
        if chosen not in _ACTIVATIONS:
            raise Unknown(f"activation {chosen}")
        operator, attributes = _ACTIVATIONS[chosen]
        if operator:
            self.node(operator, **attributes)


class _Writer:
    """The nodes and weights of a graph."""

    def __init__(self) -> None:
        self.nodes: list[bytes] = []
        self.weights: dict[str, npt.NDArray[Any]] = {}
        self._names: set[str] = set()

    def node(self, operator: str, inputs: list[str], layer: str, attributes: dict[str, Any]) -> str:
        name, number = layer, 1
        while name in self._names:
            name, number = f"{layer}/{operator}" + (f"_{number}" if number > 1 else ""), number + 1
        self._names.add(name)
        output = f"{name}:{len(self.nodes)}"
        self.nodes.append(_onnx.node(operator, inputs, [output], name, **attributes))
        return output


def _two_axes(layer: Layer) -> None:
    if layer.get("data_format", "channels_last") != "channels_last":
        raise Unknown("channels first")


def _padding(layer: Layer) -> str:
    return {"valid": "VALID", "same": "SAME_UPPER"}[layer.get("padding", "valid")]


def _conv(layer: Layer) -> None:
    _convolved(layer, lambda kernel: (np.transpose(kernel, (3, 2, 0, 1)), layer.get("groups") or 1))


def _depthwise(layer: Layer) -> None:
    _convolved(layer, _per_channel)


def _per_channel(kernel: Any) -> tuple[Any, int]:
    height, width, channels, multiplier = kernel.shape
    grouped = np.transpose(kernel, (2, 3, 0, 1)).reshape(channels * multiplier, 1, height, width)
    return grouped, channels


def _convolved(layer: Layer, turned: Callable[[Any], tuple[Any, int]]) -> None:
    _two_axes(layer)
    kernel, *bias = layer.weights(layer.name)
    turned_kernel, groups = turned(kernel)
    weights = [layer.weight("kernel", turned_kernel), *(layer.weight("bias", one) for one in bias)]
    layer.channels_first()
    layer.node("Conv", *weights, strides=list(layer.get("strides", [1, 1])), group=int(groups),
               dilations=list(layer.get("dilation_rate") or [1, 1]), auto_pad=_padding(layer))
    layer.channels_last()
    layer.activation()


def _dense(layer: Layer) -> None:
    kernel, *bias = layer.weights(layer.name)
    layer.node("MatMul", layer.weight("kernel", kernel))
    if bias:
        layer.node("Add", layer.weight("bias", bias[0]))
    layer.activation()


def _pool(operator: str) -> Callable[[Layer], None]:
    def write(layer: Layer) -> None:
        _two_axes(layer)
        layer.channels_first()
        layer.node(operator, kernel_shape=list(layer.get("pool_size", [2, 2])), auto_pad=_padding(layer),
                   strides=list(layer.get("strides") or layer.get("pool_size", [2, 2])))
        layer.channels_last()

    return write


def _global(operator: str) -> Callable[[Layer], None]:
    def write(layer: Layer) -> None:
        _two_axes(layer)
        layer.node(operator, axes=[1, 2], keepdims=int(bool(layer.get("keepdims"))))
        layer.rank = 4 if layer.get("keepdims") else 2

    return write


def _flatten(layer: Layer) -> None:
    _two_axes(layer)
    layer.node("Flatten", axis=1)
    layer.rank = 2


def _norm(layer: Layer) -> None:
    axis = layer.get("axis", -1)
    axis = axis[0] if isinstance(axis, (list, tuple)) else axis
    weights = layer.weights(layer.name)
    if axis % layer.rank != layer.rank - 1:
        raise Unknown("normalisation of another axis")
    scaled, centred = bool(layer.get("scale", True)), bool(layer.get("center", True))
    mean, variance = weights[-2:]
    deviation = np.sqrt(variance + layer.get("epsilon", 1e-3))
    scale = (weights[0] if scaled else np.ones_like(deviation)) / deviation
    shift = (weights[int(scaled)] if centred else 0.0) - mean * scale
    layer.node("Mul", layer.weight("scale", scale.astype(np.float32)))
    layer.node("Add", layer.weight("shift", shift.astype(np.float32)))


def _relu(layer: Layer) -> None:
    most, slope = layer.get("max_value"), layer.get("negative_slope") or 0.0
    if layer.get("threshold") or (most is not None and slope):
        raise Unknown("a ReLU with a threshold")
    if most is not None:
        layer.node("Clip", layer.weight("least", np.float32(0)), layer.weight("most", np.float32(most)))
    elif slope:
        layer.node("LeakyRelu", alpha=float(slope))
    else:
        layer.node("Relu")


def _leaky(layer: Layer) -> None:
    layer.node("LeakyRelu", alpha=float(layer.get("negative_slope", layer.get("alpha", 0.3))))


def _softmax(layer: Layer) -> None:
    layer.node("Softmax", axis=int(layer.get("axis", -1)))


def _pad(layer: Layer) -> None:
    _two_axes(layer)
    (top, bottom), (left, right) = layer.get("padding")
    pads = np.array([0, top, left, 0, 0, bottom, right, 0], np.int64)
    layer.node("Pad", layer.weight("pads", pads), mode="constant")


def _reshape(layer: Layer) -> None:
    layer.rank = 1 + len(layer.get("target_shape"))
    layer.node("Reshape", layer.weight("shape", np.array([0, *layer.get("target_shape")], np.int64)))


def _rescale(layer: Layer) -> None:
    layer.node("Mul", layer.weight("scale", np.asarray(layer.get("scale", 1.0), np.float32)))
    if np.any(layer.get("offset", 0.0)):
        layer.node("Add", layer.weight("offset", np.asarray(layer.get("offset"), np.float32)))


def _folded(operator: str) -> Callable[[Layer], None]:
    def write(layer: Layer) -> None:
        for other in layer.given[1:]:
            layer.node(operator, other)

    return write


def _concatenate(layer: Layer) -> None:
    layer.node("Concat", *layer.given[1:], axis=int(layer.get("axis", -1)))


def _as_it_is(layer: Layer) -> None:
    pass


_LAYERS: dict[str, Callable[[Layer], None]] = {
    "Activation": Layer.activation,
    "ActivityRegularization": _as_it_is,
    "Add": _folded("Add"),
    "AveragePooling2D": _pool("AveragePool"),
    "BatchNormalization": _norm,
    "Concatenate": _concatenate,
    "Conv2D": _conv,
    "Dense": _dense,
    "DepthwiseConv2D": _depthwise,
    "Dropout": _as_it_is,
    "Flatten": _flatten,
    "GaussianDropout": _as_it_is,
    "GaussianNoise": _as_it_is,
    "GlobalAveragePooling2D": _global("ReduceMean"),
    "GlobalMaxPooling2D": _global("ReduceMax"),
    "LeakyReLU": _leaky,
    "MaxPooling2D": _pool("MaxPool"),
    "Maximum": _folded("Max"),
    "Multiply": _folded("Mul"),
    "ReLU": _relu,
    "Rescaling": _rescale,
    "Reshape": _reshape,
    "Softmax": _softmax,
    "SpatialDropout2D": _as_it_is,
    "ZeroPadding2D": _pad,
}
"""Each layer that is known, and what writes it."""


def _inbound(described: Mapping[str, Any]) -> list[str]:
    """Names of the layers whose outputs a layer of a functional model takes."""
    calls = described["inbound_nodes"]
    if len(calls) != 1:
        raise Unknown(f"layer {described['name']} is called {len(calls)} times")
    (call,) = calls
    found: list[tuple[str, int, int]] = []
    if isinstance(call, dict):
        if any(_tensors(value) for value in call.get("kwargs", {}).values()):
            raise Unknown("tensors given by name")
        found = _tensors(call["args"])
    else:
        if any(one[3] for one in call):
            raise Unknown("arguments of a call")
        found = [(one[0], one[1], one[2]) for one in call]
    if any(node or tensor for _, node, tensor in found):
        raise Unknown("a layer with several outputs")
    return [name for name, _, _ in found]


def _tensors(value: Any) -> list[tuple[str, int, int]]:
    """The Keras tensors in what a layer is called with."""
    if isinstance(value, dict) and value.get("class_name") == "__keras_tensor__":
        name, node, tensor = value["config"]["keras_history"]
        return [(name, node, tensor)]
    if isinstance(value, (list, tuple)):
        return [found for one in value for found in _tensors(one)]
    return []


def _ends(value: Any) -> list[str]:
    """Names of the layers in ``input_layers`` or ``output_layers``, which is one triple or a list of them."""
    if value and isinstance(value[0], str):
        value = [value]
    if any(node or tensor for _, node, tensor in value):
        raise Unknown("a layer with several outputs")
    return [name for name, _, _ in value]


def _dtype(config: Mapping[str, Any]) -> str:
    found = config.get("dtype") or "float32"
    return found if isinstance(found, str) else str(found.get("config", {}).get("name"))


def _as_functional(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """A Sequential's configuration with an input layer and the edges said."""
    layers = [dict(layer) for layer in config["layers"]]
    if not layers:
        raise Unknown("no layers")
    if layers[0]["class_name"] != "InputLayer":
        built = layers[0]["config"].get("batch_input_shape") or (layers[0].get("build_config") or {}).get("input_shape")
        built = built or config.get("build_input_shape")
        if built is None:
            raise Unknown("a model that does not know its input")
        name = f"{layers[0]['config']['name']}_input"
        layers.insert(0, {"class_name": "InputLayer", "config": {"name": name, "batch_shape": built}})
    before = None
    for layer in layers:
        layer["name"] = layer["config"]["name"]
        layer["inbound_nodes"] = [] if before is None else [[[before, 0, 0, {}]]]
        before = layer["name"]
    return {**config, "layers": layers, "input_layers": [[layers[0]["name"], 0, 0]], "output_layers": [[before, 0, 0]]}


def written(config: Mapping[str, Any], weights: Weights, *, sequential: bool) -> bytes:
    """A Sequential or functional model as ONNX, with the names of its layers.

    Inputs are ``(batch, …)`` float32 by the names of the input layers, outputs have the last layers' names.

    Args:
        config: The model's configuration: what ``get_config`` returns.
        weights: The weights of each layer.

    Raises:
        Unknown: where something is not in the table.
    """
    config = _as_functional(config) if sequential else config
    described = {layer["config"].get("name", layer.get("name")): layer for layer in config["layers"]}
    writer = _Writer()
    inputs: _onnx.Ports = {}
    values: dict[str, tuple[str, int]] = {}
    for name in _ends(config["input_layers"]):
        one = described[name]["config"]
        shape = one.get("batch_shape") or one.get("batch_input_shape")
        if _dtype(one) != "float32" or shape is None:
            raise Unknown("an input that is not float32")
        named = [f"{name}_{axis}" if extent is None else extent for axis, extent in enumerate(shape)]
        inputs[name] = (1, ["batch" if shape[0] is None else shape[0], *named[1:]])
        values[name] = name, len(shape)
    outputs = _ends(config["output_layers"])
    _walk(described, weights, writer, values)
    for name in outputs:
        writer.nodes.append(_onnx.node("Identity", [values[name][0]], [name], f"{name}/output"))
    tensors = [_onnx.tensor(name, array) for name, array in writer.weights.items()]
    return _onnx.model(_onnx.graph(writer.nodes, inputs, {name: (1, None) for name in outputs}, tensors,
                                   str(config.get("name", "model"))), _OPSET)


def _walk(
    described: Mapping[str, Any], weights: Weights, writer: _Writer, values: dict[str, tuple[str, int]]
) -> None:
    """Writes every layer after those it takes from; ``values`` are the outputs known so far, with their ranks."""
    waiting = {name: _inbound(layer) for name, layer in described.items() if name not in values}
    while waiting:
        ready = [name for name, given in waiting.items() if given and all(one in values for one in given)]
        if not ready:
            raise Unknown("a layer that takes nothing, or its own output")
        for name in ready:
            given, layer = waiting.pop(name), described[name]
            kind = layer["class_name"]
            own = layer.get("module", "keras").partition(".")[0] == "keras"
            if kind not in _LAYERS or not own:
                raise Unknown(f"layer {kind}")
            # Half precision is for training: here all is computed in float32, in which the weights are.
            if _dtype(layer["config"]) not in ("float32", "mixed_bfloat16", "mixed_float16"):
                raise Unknown(f"layer {name} of {_dtype(layer['config'])}")
            one = Layer(writer, layer, weights, [values[of][0] for of in given], values[given[0]][1])
            _LAYERS[kind](one)
            values[name] = one.value, one.rank
