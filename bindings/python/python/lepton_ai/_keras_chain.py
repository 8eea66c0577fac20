"""Keras models that are a chain of common layers as ONNX, written layer by layer with their names.

Keras' own export goes through other converters, which copy every weight a dozen times and rename the nodes.
What is not in the table here is left to it.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

_ACTIVATIONS = {"linear": "", "relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh", "softmax": "Softmax",
                "softplus": "Softplus", "softsign": "Softsign"}
"""Keras' activations and ONNX's operators."""

_OPSET = 17


class _Unknown(Exception):
    """A layer, or an option of it, that is not in the table."""


class _Writer:
    """The nodes and weights of a graph, and the value that the last layer made."""

    def __init__(self, value: str) -> None:
        self.helper = importlib.import_module("onnx.helper")
        self.arrays = importlib.import_module("onnx.numpy_helper")
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self.value = value
        self.count = 0

    def weight(self, name: str, array: Any) -> str:
        values: npt.NDArray[np.float32] = np.ascontiguousarray(_numpy(array), np.float32)
        self.weights.append(self.arrays.from_array(values, name))
        return name

    def node(self, operator: str, layer: Any, *others: str, **attributes: Any) -> None:
        """Adds a node that takes what was made last, and makes what is next."""
        self.count += 1
        name = layer.name if not any(node.name == layer.name for node in self.nodes) else f"{layer.name}/{operator}"
        output = f"{name}:{self.count}"
        self.nodes.append(self.helper.make_node(operator, [self.value, *others], [output], name, **attributes))
        self.value = output

    def channels_first(self, layer: Any) -> None:
        self.node("Transpose", layer, perm=[0, 3, 1, 2])

    def channels_last(self, layer: Any) -> None:
        self.node("Transpose", layer, perm=[0, 2, 3, 1])


def _numpy(value: Any) -> npt.NDArray[Any]:
    array: npt.NDArray[Any] = sys.modules["keras"].ops.convert_to_numpy(value)
    return array


def _activation(writer: _Writer, layer: Any) -> None:
    name = getattr(layer.activation, "__name__", "")
    if name not in _ACTIVATIONS:
        raise _Unknown(f"activation {name}")
    if _ACTIVATIONS[name]:
        writer.node(_ACTIVATIONS[name], layer, **({"axis": -1} if name == "softmax" else {}))


def _two_axes(layer: Any) -> None:
    if layer.data_format != "channels_last":
        raise _Unknown("channels first")


def _padding(layer: Any) -> str:
    return {"valid": "VALID", "same": "SAME_UPPER"}[layer.padding]


def _conv(writer: _Writer, layer: Any) -> None:
    _two_axes(layer)
    weights = [writer.weight(f"{layer.name}/kernel", np.transpose(_numpy(layer.kernel), (3, 2, 0, 1)))]
    if layer.use_bias:
        weights.append(writer.weight(f"{layer.name}/bias", layer.bias))
    writer.channels_first(layer)
    writer.node("Conv", layer, *weights, strides=list(layer.strides), dilations=list(layer.dilation_rate),
                group=layer.groups, auto_pad=_padding(layer))
    writer.channels_last(layer)
    _activation(writer, layer)


def _dense(writer: _Writer, layer: Any) -> None:
    writer.node("MatMul", layer, writer.weight(f"{layer.name}/kernel", layer.kernel))
    if layer.use_bias:
        writer.node("Add", layer, writer.weight(f"{layer.name}/bias", layer.bias))
    _activation(writer, layer)


def _pool(operator: str) -> Callable[[_Writer, Any], None]:
    def write(writer: _Writer, layer: Any) -> None:
        _two_axes(layer)
        writer.channels_first(layer)
        writer.node(operator, layer, kernel_shape=list(layer.pool_size), strides=list(layer.strides),
                    auto_pad=_padding(layer))
        writer.channels_last(layer)

    return write


def _global_average(writer: _Writer, layer: Any) -> None:
    _two_axes(layer)
    writer.node("ReduceMean", layer, axes=[1, 2], keepdims=int(layer.keepdims))


def _flatten(writer: _Writer, layer: Any) -> None:
    if layer.data_format != "channels_last":
        raise _Unknown("channels first")
    writer.node("Flatten", layer, axis=1)


def _norm(writer: _Writer, layer: Any) -> None:
    if layer.axis not in (-1, len(layer.input.shape) - 1):
        raise _Unknown("normalisation of another axis")
    deviation = np.sqrt(_numpy(layer.moving_variance) + layer.epsilon)
    scale = (_numpy(layer.gamma) if layer.scale else np.ones_like(deviation)) / deviation
    shift = (_numpy(layer.beta) if layer.center else 0.0) - _numpy(layer.moving_mean) * scale
    writer.node("Mul", layer, writer.weight(f"{layer.name}/scale", scale))
    writer.node("Add", layer, writer.weight(f"{layer.name}/shift", shift))


def _relu(writer: _Writer, layer: Any) -> None:
    if layer.max_value is not None or layer.negative_slope or layer.threshold:
        raise _Unknown("a ReLU with options")
    writer.node("Relu", layer)


_LAYERS: dict[str, Callable[[_Writer, Any], None]] = {
    "InputLayer": lambda writer, layer: None,
    "Dropout": lambda writer, layer: None,
    "Activation": _activation,
    "ReLU": _relu,
    "Dense": _dense,
    "Conv2D": _conv,
    "MaxPooling2D": _pool("MaxPool"),
    "AveragePooling2D": _pool("AveragePool"),
    "GlobalAveragePooling2D": _global_average,
    "Flatten": _flatten,
    "BatchNormalization": _norm,
}
"""Each layer that is known, and what writes it."""


def chain_as_onnx(model: Any) -> bytes | None:
    """The model as ONNX, with the names of its layers; ``None`` where it is no chain of known layers.

    The input is ``(batch, …)`` float32 by the name Keras gives it, the output has the last layer's name.
    """
    keras = sys.modules["keras"]
    layers = list(getattr(model, "layers", []))
    own = all(type(layer) is getattr(keras.layers, type(layer).__name__, None) for layer in layers)
    if not own or not layers or not _is_chain(model, layers) or model.inputs[0].dtype != "float32":
        return None
    if any(getattr(layer, "compute_dtype", "float32") != "float32" for layer in layers):
        return None
    name, shape = model.inputs[0].name, model.inputs[0].shape
    writer = _Writer(name)
    try:
        for layer in layers:
            _LAYERS[type(layer).__name__](writer, layer)
    except (_Unknown, KeyError):
        return None
    return _file(model, writer, (name, shape), layers[-1])


def _is_chain(model: Any, layers: list[Any]) -> bool:
    if len(getattr(model, "inputs", None) or []) != 1 or len(getattr(model, "outputs", None) or []) != 1:
        return False
    try:
        joined = all(after.input is before.output for before, after in zip(layers, layers[1:]))
        return joined and layers[-1].output is model.outputs[0]
    except (AttributeError, ValueError):
        # Called more than once.
        return False


def _file(model: Any, writer: _Writer, given: tuple[str, Any], last: Any) -> bytes:
    onnx = importlib.import_module("onnx")
    helper = writer.helper
    name, shape = given
    output = last.name
    writer.nodes.append(helper.make_node("Identity", [writer.value], [output], f"{output}/output"))
    extents = ["batch", *shape[1:]] if shape[0] is None else list(shape)
    described = [
        helper.make_tensor_value_info(name, 1, [extent if extent is not None else f"{name}_{axis}"
                                                for axis, extent in enumerate(extents)]),
        helper.make_tensor_value_info(output, 1, [extents[0], *model.outputs[0].shape[1:]]),
    ]
    graph = helper.make_graph(writer.nodes, model.name, described[:1], described[1:], writer.weights)
    proto = onnx.ModelProto(ir_version=8, opset_import=[helper.make_opsetid("", _OPSET)])
    proto.graph.CopyFrom(graph)
    data: bytes = proto.SerializeToString()
    return data
