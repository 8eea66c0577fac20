"""Anything that holds numbers, as NumPy arrays the engine can read in place."""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .errors import InputTypeError, MissingPackageError, UsageError

_OWN = ("bool", "float16", "float32", "float64", "int8", "int16", "int32", "int64",
        "uint8", "uint16", "uint32", "uint64")
"""Types that are NumPy's own."""

_CPU = 1
"""The number DLPack has for main memory."""


class TensorSpec(NamedTuple):
    """An input or output of a model."""

    name: str
    """Its name."""
    dtype: str
    """Its element type, by NumPy's name, such as ``"float32"``."""
    shape: tuple[int | str | None, ...]
    """Its extents: a number, the name or formula of one that the inputs decide (such as
    ``"batch"``), or ``None`` for one that depends on data."""


def plain(value: Any, dtype: str) -> npt.NDArray[Any]:
    """``value`` as a dense row-major array in this machine's byte order.

    Arrays and tensors keep their element type, whatever it is; numbers and lists, which have none
    of their own, become ``dtype``. Copies only where the memory is laid out otherwise.
    """
    array = _array(value, dtype)
    native = array.dtype.newbyteorder("=")
    # Not `ascontiguousarray`, which makes a one-element vector of an array without axes.
    return np.require(array, native, ["C", "A"])


def strings(value: Any) -> tuple[list[int], list[str]]:
    """The shape of an array or nested list of strings, and its elements in order.

    Raises:
        InputTypeError: where an element is not a string.
    """
    array = value if isinstance(value, np.ndarray) else np.asarray(value)
    elements = array.ravel().tolist()
    try:
        found = [word.decode("utf-8") if isinstance(word, bytes) else word for word in elements]
    except UnicodeDecodeError as error:
        raise InputTypeError(f"an element is not UTF-8: {error}", "give strings") from None
    for word in found:
        if not isinstance(word, str):
            raise InputTypeError(
                f"expected strings, found an element of type {type(word).__name__}",
                "give an array of strings, such as np.array([\"word\"])",
            )
    return list(array.shape), found


def objects(shape: list[int], words: list[str]) -> npt.NDArray[Any]:
    """Strings as an array of objects."""
    array = np.empty(len(words), dtype=object)
    array[:] = words
    return array.reshape(shape)


def _array(value: Any, dtype: str) -> npt.NDArray[Any]:
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, np.generic):
        return np.asarray(value)
    if hasattr(value, "__dlpack__"):
        return _exchanged(value)
    if hasattr(value, "__array__"):
        return np.asarray(value)
    if value is None or isinstance(value, (str, bytes, bytearray, dict, set)):
        raise InputTypeError(
            f"expected an array of {dtype}, found {type(value).__name__}",
            "give a NumPy array, a tensor with DLPack, or a list of numbers",
        )
    try:
        return _converted(np.asarray(value), _dtype(dtype))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InputTypeError(
            f"{type(value).__name__} is not an array of {dtype}: {error}",
            "give a NumPy array, a tensor with DLPack, or a list of numbers",
        ) from None


def _converted(numbers: npt.NDArray[Any], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Numbers as ``dtype``; floats are rounded to it, whole numbers and truth values stay what they are.

    Raises:
        TypeError, ValueError: where they are not numbers, or ``dtype`` cannot hold them.
    """
    if numbers.dtype == dtype:
        return numbers
    if numbers.dtype.kind not in "biuf":
        raise TypeError(f"{numbers.dtype} is not a type of real numbers")
    with np.errstate(invalid="ignore", over="ignore"):
        converted = numbers.astype(dtype)
    if dtype.kind in "biu" and not np.array_equal(converted, numbers):
        raise ValueError(f"a number is out of range of {dtype}, or not whole")
    return converted


def _exchanged(value: Any) -> npt.NDArray[Any]:
    """A tensor of another library over the same memory, through DLPack."""
    if hasattr(value, "detach"):
        value = value.detach()
    device = value.__dlpack_device__()
    if device[0] != _CPU:
        raise InputTypeError(
            f"the tensor is on another device (DLPack type {int(device[0])})", "move it to the CPU first"
        )
    if str(getattr(value, "dtype", "")) == "torch.bfloat16":
        torch = importlib.import_module("torch")
        bits: npt.NDArray[Any] = np.from_dlpack(value.view(torch.int16))
        return bits.view(_dtype("bfloat16"))
    try:
        return np.from_dlpack(value)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise InputTypeError(
            f"{type(value).__name__} cannot be read through DLPack: {error}", "convert it to a NumPy array"
        ) from None


def _dtype(name: str) -> np.dtype[Any]:
    """The NumPy type of that name, which ``ml_dtypes`` may have brought."""
    if name in _OWN:
        return np.dtype(name)
    try:
        found: np.dtype[Any] = np.dtype(getattr(importlib.import_module("ml_dtypes"), name))
    except (ImportError, AttributeError):
        raise MissingPackageError(f"NumPy has no {name} of its own", "pip install -U ml_dtypes") from None
    return found


def rows(value: Any, dtype: str) -> npt.NDArray[Any]:
    """``value`` (rows first) converted to ``dtype``: a table, an array, a tensor or nested lists.

    Raises:
        UsageError: where there is no axis of rows.
    """
    if hasattr(value, "to_numpy") and not isinstance(value, np.ndarray):
        value = value.to_numpy()
    array = plain(value, dtype)
    if array.ndim == 0:
        raise UsageError("one number has no rows", "give an array of at least one axis, rows first")
    try:
        return np.require(_converted(array, _dtype(dtype)), requirements=["C", "A"])
    except (TypeError, ValueError) as error:
        raise InputTypeError(f"rows of {array.dtype} as {dtype}: {error}", "encode them as numbers") from None
