"""For the training of Keras 3 models: :class:`ConversionCallback`."""

from __future__ import annotations

import importlib
from typing import Any

import keras

from .conversion import Conversion, Converter, Metric, accuracy

__all__ = ["ConversionCallback"]


class ConversionCallback(keras.callbacks.Callback):  # type: ignore[misc]
    """Converts the weights every ``every`` batches of ``fit``, and logs what the compressed model reaches.

    Args:
        every: Batches from one conversion to the next.
        validation: ``(X, y)``: rows ``(rows, …)`` of the only input, and labels.
        log_dir: Folder of TensorBoard events, written by ``tf.summary``; needs TensorFlow. Default: none.
        metric: What to find on the validation rows. Default: the share of right classes.
        runs: Runs of one row the latency is the median of.
        verbose: Print a line each time.

    Example:
        >>> model.fit(x, y, callbacks=[ConversionCallback(every=100, validation=(v, w))])     # doctest: +SKIP
    """

    def __init__(
        self,
        every: int = 100,
        validation: tuple[Any, Any] | None = None,
        log_dir: str | None = None,
        *,
        metric: Metric = accuracy,
        runs: int = 10,
        verbose: bool = False,
    ) -> None:
        super().__init__()
        self._converter = Converter(None, every, validation, metric, runs, None)
        self._verbose = verbose
        self._batches = 0
        self._summary = None if log_dir is None else importlib.import_module("tensorflow").summary
        self._writer = None if self._summary is None else self._summary.create_file_writer(str(log_dir))

    @property
    def conversions(self) -> list[Conversion]:
        """Every conversion so far, the first first."""
        return self._converter.conversions

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Counts, and converts where it is time."""
        self._batches += 1
        self._converter.model = self.model
        found = self._converter.after(self._batches)
        if found is None:
            return
        if self._verbose:
            print(f"step {found.step}: {found.file_bytes} bytes, {found.latency_us:.1f} us, metric {found.metric}")
        if self._writer is not None and self._summary is not None:
            with self._writer.as_default():
                for name, value in found.values().items():
                    self._summary.scalar(name, value, step=found.step)

    def on_train_end(self, logs: Any = None) -> None:
        """Writes what is not yet in the log."""
        if self._writer is not None:
            self._writer.flush()
