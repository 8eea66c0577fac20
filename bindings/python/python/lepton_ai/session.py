"""Running models."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from . import _native
from ._arrays import TensorSpec, rows
from .errors import UsageError
from .models import ModelLike, as_model

if TYPE_CHECKING:
    from typing_extensions import Self

_ROWS = 256
"""Rows of a run of :meth:`Session.predict` where the model leaves it open."""


@dataclass(frozen=True)
class Step:
    """One step of a profiled run."""

    node: str
    """The node of the model it came from."""
    operator: str
    """Its operator."""
    kernel: str
    """The kernel that ran; ``reference`` where there is no fast one."""
    start_us: float
    """When it began, in microseconds from the start of the run."""
    time_us: float
    """How long it took, in microseconds."""
    multiply_adds: int
    """Multiply-adds."""
    bytes: int
    """Bytes of its operands and results."""


@dataclass(frozen=True)
class Profile:
    """The steps of one run, in the order they ran. Empty where extents depend on data."""

    steps: tuple[Step, ...]

    @property
    def time_us(self) -> float:
        """Time of all steps, in microseconds."""
        return sum(step.time_us for step in self.steps)

    def __str__(self) -> str:
        total = self.time_us or 1.0
        lines = [f"{'time us':>10}  {'share':>6}  {'madds':>12}  {'kernel':<24}  {'operator':<20}  node"]
        for step in sorted(self.steps, key=lambda step: -step.time_us):
            lines.append(
                f"{step.time_us:>10.2f}  {step.time_us / total:>6.1%}  {step.multiply_adds:>12}  "
                f"{step.kernel:<24}  {step.operator:<20}  {step.node}"
            )
        return "\n".join(lines)


class Session(_native.Session):
    """A model ready to run.

    A session may be used from several threads at once, pickled and copied. Only the first run at a
    new shape plans; the last 16 plans are kept.

    Args:
        model: What :func:`lepton_ai.as_model` takes: a path, bytes, an ONNX, PyTorch, scikit-learn
            or Keras model.
        threads: Threads of one run, the calling one included.
        exact: Forbids algorithms that change the last digits of f32 answers for speed
            (transformed tiles in 3×3 convolutions).
        example_inputs: See :func:`lepton_ai.as_model`.

    Example:
        >>> session = Session("model.onnx")                          # doctest: +SKIP
        >>> session.run({"image": image})["logits"].shape            # doctest: +SKIP
        (1, 10)
    """

    def __new__(
        cls,
        model: ModelLike,
        threads: int = 1,
        exact: bool = False,
        *,
        example_inputs: Any = None,
    ) -> Self:
        if isinstance(threads, bool) or not isinstance(threads, int):
            raise UsageError(f"threads is {threads!r}; it must be a whole number")
        if not 1 <= threads <= 1024:
            raise UsageError(f"threads is {threads}; it must be from 1 to 1024")
        return super().__new__(cls, as_model(model, example_inputs), threads, exact)

    def __init__(
        self,
        model: ModelLike,
        threads: int = 1,
        exact: bool = False,
        *,
        example_inputs: Any = None,
    ) -> None:
        pass

    @property
    def inputs(self) -> list[TensorSpec]:
        """Name, element type and shape of every input, in the model's order."""
        return self.model.inputs

    @property
    def outputs(self) -> list[TensorSpec]:
        """Name, element type and shape of every output, in the model's order."""
        return self.model.outputs

    async def run_async(self, inputs: dict[str, Any] | Any) -> dict[str, npt.NDArray[Any]]:
        """:meth:`run` on a thread of the event loop's pool, so that the loop goes on meanwhile."""
        return await asyncio.to_thread(self.run, inputs)

    def profile(self, inputs: dict[str, Any] | Any | None = None) -> Profile:
        """Runs twice, and times every step of the second run.

        Args:
            inputs: As for :meth:`run`. Without, made-up ones whose open extents are 1.
        """
        return Profile(tuple(Step(*row) for row in self.profile_steps(inputs)))

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """The first output for rows of the only input, as scikit-learn's ``predict`` takes them.

        Args:
            X: ``(rows, …)`` array, data frame, tensor or nested lists; converted to the input's type.

        Returns:
            ``(rows, …)`` array of the first output: labels where the model gives labels first (as
            classifiers converted from scikit-learn do), else what the model gives.
        """
        if len(self.inputs) != 1:
            raise UsageError(f"predict takes models of one input; this has {len(self.inputs)}", "use run")
        spec = self.inputs[0]
        array = rows(X, spec.dtype)
        fixed = spec.shape[0] if spec.shape else None
        size = fixed if isinstance(fixed, int) else _ROWS
        parts = [self._some_rows(array[at : at + size], size if fixed == size else None)
                 for at in range(0, max(len(array), 1), max(size, 1))]
        return np.concatenate(parts)

    def _some_rows(self, part: npt.NDArray[Any], fixed: int | None) -> npt.NDArray[Any]:
        """The first output for some rows; the last is repeated where the model fixes their number."""
        count = len(part)
        if fixed is not None and count < fixed:
            if count == 0:
                raise UsageError("no rows", f"the model takes {fixed} rows a run")
            part = np.concatenate([part, np.repeat(part[-1:], fixed - count, axis=0)])
        output = self.run(part)[self.outputs[0].name]
        if output.ndim == 0 or len(output) != len(part):
            raise UsageError(f"output `{self.outputs[0].name}` does not have one row for each of X", "use run")
        return output[:count]

    def __repr__(self) -> str:
        return f"Session({self.model.path!r}, threads={self.threads})"
