"""For the training of PyTorch modules: :class:`ConversionHook`."""

from __future__ import annotations

import importlib
from typing import Any

import torch

from .conversion import Conversion, Converter, Metric, accuracy

__all__ = ["ConversionHook"]


class ConversionHook:
    """Converts the weights every ``every`` steps of an optimiser, and logs what the compressed model reaches.

    Args:
        model: The module that is trained.
        optimizer: Its optimiser; the hook is called after each of its steps.
        every: Steps from one conversion to the next.
        validation: ``(X, y)``: rows ``(rows, …)`` of the only input, and labels.
        log_dir: Folder of TensorBoard events, written by ``torch.utils.tensorboard``; needs ``tensorboard``.
            Default: none.
        metric: What to find on the validation rows. Default: the share of right classes.
        runs: Runs of one row the latency is the median of.
        verbose: Print a line each time.
        example_inputs: What the module can be called with; the first validation row where left out.

    Example:
        >>> with ConversionHook(model, optimizer, every=100, validation=(v, w)):     # doctest: +SKIP
        ...     train(model, optimizer)
    """

    def __init__(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        every: int = 100,
        validation: tuple[Any, Any] | None = None,
        log_dir: str | None = None,
        *,
        metric: Metric = accuracy,
        runs: int = 10,
        verbose: bool = False,
        example_inputs: Any = None,
    ) -> None:
        self._converter = Converter(model, every, validation, metric, runs, example_inputs)
        self._verbose = verbose
        self._steps = 0
        self._writer: Any = None
        if log_dir is not None:
            self._writer = importlib.import_module("torch.utils.tensorboard").SummaryWriter(str(log_dir))
        self._handle = optimizer.register_step_post_hook(self._after_step)

    @property
    def conversions(self) -> list[Conversion]:
        """Every conversion so far, the first first."""
        return self._converter.conversions

    def _after_step(self, *_: Any) -> None:
        self._steps += 1
        found = self._converter.after(self._steps)
        if found is None:
            return
        if self._verbose:
            print(f"step {found.step}: {found.file_bytes} bytes, {found.latency_us:.1f} us, metric {found.metric}")
        if self._writer is not None:
            for name, value in found.values().items():
                self._writer.add_scalar(name, value, found.step)

    def close(self) -> None:
        """Ends the conversions, and writes what is not yet in the log."""
        self._handle.remove()
        if self._writer is not None:
            self._writer.close()

    def __enter__(self) -> ConversionHook:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()
