"""Lepton behind ONNX's backend interface, for ONNX's own test suite and tools that speak it.

>>> import lepton_ai.backend                                                      # doctest: +SKIP
>>> lepton_ai.backend.run_model(proto, [array])                                   # doctest: +SKIP

Needs the package ``onnx``. The interface is that of ``onnx.backend.base``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import MissingPackageError, ModelError, UnsupportedError, UsageError
from .session import Session

try:
    import onnx
    from onnx.backend.base import Backend, BackendRep, namedtupledict
except ImportError:
    raise MissingPackageError("ONNX's backend interface needs onnx", "pip install onnx") from None


class Prepared(BackendRep):
    """A model that is ready to run."""

    def __init__(self, session: Session) -> None:
        self.session = session

    @property
    def names(self) -> list[str]:
        """Names of the inputs."""
        return [spec.name for spec in self.session.inputs]

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Every output in the model's order.

        Args:
            inputs: A list of arrays in the model's order, one array, or ``{name: array}``.
        """
        if isinstance(inputs, dict):
            named = inputs
        else:
            given: Sequence[npt.NDArray[Any]] = inputs if isinstance(inputs, (list, tuple)) else [inputs]
            if len(given) != len(self.names):
                raise UsageError(f"{len(given)} arrays for {len(self.names)} inputs: {', '.join(self.names)}")
            named = dict(zip(self.names, given))
        return self._answer(named)

    def _answer(self, named: dict[str, Any]) -> tuple[Any, ...]:
        answer = self.session.run(named)
        names = [spec.name for spec in self.session.outputs]
        outputs: tuple[Any, ...] = namedtupledict("Outputs", names)(*(answer[name] for name in names))
        return outputs


class PreparedByInputs(Prepared):
    """A model with operands that Lepton wants as constants, such as axes, and that are inputs here.

    Each run reads the model again with the values of these inputs as constants.
    """

    def __init__(self, model: onnx.ModelProto, threads: int) -> None:
        self.model = model
        self.threads = threads

    @property
    def names(self) -> list[str]:
        """Names of the inputs."""
        return _names(self.model)

    def _answer(self, named: dict[str, Any]) -> tuple[Any, ...]:
        wanted = [name for name in self.names if name in named]
        # Operands that tell extents and axes are whole numbers; where that is not enough, all inputs.
        few = [name for name in wanted if np.asarray(named[name]).dtype.kind in "iub"]
        for constants in (few, wanted):
            model = onnx.ModelProto()
            model.CopyFrom(self.model)
            left = [port for port in model.graph.input if port.name not in constants]
            del model.graph.input[:]
            model.graph.input.extend(left)
            values = [onnx.numpy_helper.from_array(np.asarray(named[name]), name) for name in constants]
            model.graph.initializer.extend(values)
            try:
                self.session = Session(model, self.threads)
            except (ModelError, UnsupportedError):
                if constants is wanted:
                    raise
                continue
            return super()._answer({name: value for name, value in named.items() if name not in constants})
        raise AssertionError("the second of two attempts answers or raises")


def _names(model: onnx.ModelProto) -> list[str]:
    fixed = {tensor.name for tensor in model.graph.initializer}
    return [port.name for port in model.graph.input if port.name not in fixed]


class LeptonBackend(Backend):
    """The interface as a class, as ``onnx.backend.test.BackendTest`` takes it."""

    @classmethod
    def prepare(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> Prepared:
        """Reads the model; ``threads`` may be given.

        Raises:
            UsageError: for another device than the CPU.
            LeptonError: for what :class:`lepton_ai.Session` refuses.
        """
        if not cls.supports_device(device):
            raise UsageError(f"no device `{device}`", "there is only CPU")
        threads = kwargs.get("threads", 1)
        try:
            return Prepared(Session(model, threads))
        except (ModelError, UnsupportedError) as error:
            if "constant" not in error.message or not _names(model):
                raise
            return PreparedByInputs(model, threads)

    @classmethod
    def run_node(
        cls,
        node: onnx.NodeProto,
        inputs: Any,
        device: str = "CPU",
        outputs_info: Sequence[tuple[np.dtype[Any], tuple[int, ...]]] | None = None,
        **kwargs: Any,
    ) -> tuple[Any, ...]:
        """One operator on arrays; its outputs' types are inferred."""
        arrays = [np.asarray(array) for array in inputs]
        names = [name for name in node.input if name]
        helper = onnx.helper
        ports = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
            for name, array in zip(names, arrays)
        ]
        outputs = [onnx.ValueInfoProto(name=name) for name in node.output if name]
        graph = helper.make_graph([node], "node", ports, outputs)
        version = kwargs.get("opset_version", onnx.defs.onnx_opset_version())
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid(node.domain, version)])
        return cls.prepare(onnx.shape_inference.infer_shapes(model), device).run(arrays)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """True for ``CPU``."""
        return device.split(":")[0] == "CPU"


is_compatible = LeptonBackend.is_compatible
prepare = LeptonBackend.prepare
run_model = LeptonBackend.run_model
run_node = LeptonBackend.run_node
supports_device = LeptonBackend.supports_device
