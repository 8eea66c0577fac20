"""What can go wrong. Every exception has a ``code`` for programs and a ``help`` for people."""

from __future__ import annotations

from typing import Any, ClassVar


class LeptonError(Exception):
    """Base of every error that Lepton raises.

    Attributes:
        code: A short name of the kind of error that does not change between versions.
        message: What is wrong, with names and numbers.
        help: What to do about it; may be empty.
    """

    code: ClassVar[str] = "error"

    def __init__(self, message: str, help: str = "") -> None:
        super().__init__(message, help)
        self.message = message
        self.help = help

    def __str__(self) -> str:
        return f"{self.message}\n  help: {self.help}" if self.help else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.message, self.help))


class FileError(LeptonError):
    """A file cannot be read or written."""

    code = "file"


class ModelError(LeptonError, ValueError):
    """The bytes are not a valid model."""

    code = "model.invalid"


class UnsupportedError(LeptonError):
    """The model uses something that Lepton does not have."""

    code = "model.unsupported"


class InputNameError(LeptonError, KeyError):
    """An input is missing, or one was given that the model does not have."""

    code = "input.name"

    __str__ = LeptonError.__str__


class InputTypeError(LeptonError, TypeError):
    """An input has another element type than the model takes."""

    code = "input.type"


class InputShapeError(LeptonError, ValueError):
    """An input has a shape that the model does not take."""

    code = "input.shape"


class RunError(LeptonError):
    """The model could not be planned or run."""

    code = "run"


class DataError(LeptonError, ValueError):
    """A data set cannot be read, or does not fit the model."""

    code = "data"


class UsageError(LeptonError, ValueError):
    """An argument makes no sense."""

    code = "usage"


class MissingPackageError(LeptonError, ImportError):
    """An optional package is not installed; ``help`` says how to get it."""

    code = "package.missing"
