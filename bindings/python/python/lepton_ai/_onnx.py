"""Writes ONNX models as bytes, so that no package is needed for it.

Field numbers are those of ``onnx.proto3``; values are protobuf varints and length-prefixed fields.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Bytes = bytes
"""Bytes of a model."""

_TYPES = {"float32": 1, "uint8": 2, "int8": 3, "int32": 6, "int64": 7, "bool": 9, "float16": 10, "float64": 11}


def _varint(value: int) -> bytes:
    out = bytearray()
    while True:
        out.append((value & 0x7F) | (0x80 if value > 0x7F else 0))
        value >>= 7
        if not value:
            return bytes(out)


def _number(field: int, value: int) -> bytes:
    # Negative ones as the 64 bits they have.
    return _varint(field << 3) + _varint(value & 0xFFFF_FFFF_FFFF_FFFF)


def _bytes(field: int, value: bytes | str) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def _attribute(name: str, value: int | float | str | list[int]) -> bytes:
    """An AttributeProto: its kind follows from the value."""
    if isinstance(value, list):
        return _bytes(1, name) + b"".join(_number(8, one) for one in value) + _number(20, 7)
    if isinstance(value, float):
        return _bytes(1, name) + _varint(2 << 3 | 5) + np.float32(value).tobytes() + _number(20, 1)
    if isinstance(value, int):
        return _bytes(1, name) + _number(3, value) + _number(20, 2)
    return _bytes(1, name) + _bytes(4, value) + _number(20, 3)


def node(operator: str, inputs: list[str], outputs: list[str], name: str | None = None, **attributes: Any) -> bytes:
    """A NodeProto; an attribute is a whole number, a float, a text or a list of whole numbers."""
    return (
        b"".join(_bytes(1, given) for given in inputs)
        + b"".join(_bytes(2, made) for made in outputs)
        + _bytes(3, name or f"{operator}_{outputs[0]}")
        + _bytes(4, operator)
        + b"".join(_bytes(5, _attribute(key, value)) for key, value in attributes.items())
    )


def tensor(name: str, array: np.ndarray[Any, Any]) -> bytes:
    """A TensorProto."""
    dims = b"".join(_number(1, extent) for extent in array.shape)
    return dims + _number(2, _TYPES[str(array.dtype)]) + _bytes(8, name) + _bytes(9, array.tobytes())


def _value(name: str, dtype: int, shape: list[int | str] | None) -> bytes:
    if shape is None:
        return _bytes(1, name) + _bytes(2, _bytes(1, _number(1, dtype)))
    dims = b"".join(_bytes(1, _number(1, d) if isinstance(d, int) else _bytes(2, d)) for d in shape)
    return _bytes(1, name) + _bytes(2, _bytes(1, _number(1, dtype) + _bytes(2, dims)))


Ports = dict[str, tuple[int, "list[Any] | None"]]
"""Name to (element type by ONNX's number, extents, or none where they are not known)."""


def graph(
    nodes: list[bytes], inputs: Ports, outputs: Ports, tensors: list[bytes] | None = None, name: str = "graph"
) -> bytes:
    """A GraphProto."""
    return (
        b"".join(_bytes(1, n) for n in nodes)
        + _bytes(2, name)
        + b"".join(_bytes(5, t) for t in tensors or [])
        + b"".join(_bytes(11, _value(name, *port)) for name, port in inputs.items())
        + b"".join(_bytes(12, _value(name, *port)) for name, port in outputs.items())
    )


def model(of: bytes, version: int = 17) -> Bytes:
    """A ModelProto of the operator set ``version``."""
    return _number(1, 8) + _bytes(7, of) + _bytes(8, _number(2, version))
