"""The native half: see src/lib.rs."""

from collections.abc import Callable
from os import PathLike
from typing import Any

import numpy as np
import numpy.typing as npt
from typing_extensions import Self

from ._arrays import TensorSpec

__version__: str

class Model:
    """A model that was read and verified. Immutable; may be used from several threads."""

    @staticmethod
    def open(path: str | PathLike[str]) -> Model:
        """Reads an ``.onnx`` or ``.lepton`` file."""
    @staticmethod
    def from_bytes(name: str, bytes: bytes) -> Model:
        """Reads a model from the bytes of a file; ``name`` stands for the file in messages."""
    @property
    def path(self) -> str:
        """The file, or what stands for it."""
    @property
    def format(self) -> str:
        """``onnx`` or ``lepton``."""
    @property
    def file_bytes(self) -> int:
        """Bytes of the file and of the tensors beside it."""
    @property
    def content_hash(self) -> str:
        """64 hexadecimal digits (BLAKE3) that stand for the file and the tensors beside it."""
    @property
    def inputs(self) -> list[TensorSpec]:
        """Name, element type and shape of every input."""
    @property
    def outputs(self) -> list[TensorSpec]:
        """Name, element type and shape of every output."""

class Session:
    """A model ready to run."""

    def __new__(cls, model: Model, threads: int = 1, exact: bool = False) -> Self: ...
    @property
    def model(self) -> Model:
        """The model it runs."""
    @property
    def threads(self) -> int:
        """Threads of one run, the calling one included."""
    @property
    def exact(self) -> bool:
        """True if algorithms that change the answer are forbidden."""
    @property
    def instruction_set(self) -> str:
        """The instruction set that runs: ``portable``, ``avx2`` or ``avx512``."""
    def run(self, inputs: dict[str, Any] | Any) -> dict[str, npt.NDArray[Any]]:
        """Runs the model.

        Args:
            inputs: An array for each input by its name, or one array for a model of one input.
                Dense arrays and CPU tensors with DLPack are read in place, and must not be written
                to before this returns; others are copied. Element types are never converted.

        Returns:
            Every output by its name; the arrays own their memory.

        Raises:
            InputNameError, InputTypeError, InputShapeError: where the inputs do not fit.
            RunError: where the model cannot run on them.

        Other Python threads go on meanwhile. A run cannot be interrupted; Ctrl-C is heard after it.
        """
    def profile_steps(
        self, inputs: dict[str, Any] | Any | None = None
    ) -> list[tuple[str, str, str, float, float, int, int]]:
        """The rows behind :meth:`lepton_ai.Session.profile`."""

def compressed(model: Model, recipe: str, samples: list[list[Any]]) -> bytes:
    """The bytes of the artefact of ``model`` after a recipe in JSON; ``samples`` are runs, each a list
    of one array per input."""

def coded_bytes(values: npt.NDArray[np.int8]) -> int:
    """Bytes that an artefact takes for the values of an array, in the layout of the model's graph."""

def paired(
    before: Model,
    after: Model,
    threads: int,
    time_s: float,
    instance: str,
    prices: str | PathLike[str] | None,
    utilisation: float,
) -> str:
    """Time, memory, cost and bytes of two models in interleaved rounds; JSON."""

def optimize(
    model: Model,
    data: str | PathLike[str],
    out: str | PathLike[str],
    request: dict[str, Any],
    progress: Callable[[int, int, str, str], object] | None,
) -> tuple[str, int, int]:
    """The report as JSON, the steps that the journal had, and those done now."""

def evaluate(
    model: Model, data: str | PathLike[str], metrics: list[str], part: str, threads: int
) -> list[tuple[str, float, float, float]]:
    """Name, value and confidence interval of each metric."""

def metrics() -> list[tuple[str, str]]:
    """Name and meaning of every metric."""

def targets() -> list[str]:
    """Names of what a search can make as small as possible."""
