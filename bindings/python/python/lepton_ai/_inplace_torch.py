"""PyTorch modules under compression: masks after every optimiser step, weights seen on their grid."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from . import _schedule, _size
from ._average import Mean
from .errors import UsageError
from .inplace import Layer, Plan, Share
from .models import unwrapped

_COMPRESSED = (torch.nn.Linear, torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)
"""Layers whose ``weight`` has the output channels first."""

_SAMPLE = 1 << 18
"""Weights of a layer, at most, from which the threshold of its kept share is found."""

_TEMPERATURE = 3.0
"""What answers are divided by before they are compared with the teacher's."""

_BITS, _OWNER, _NAME = "_lepton_bits", "_lepton_owner", "_lepton_name"

_attached: weakref.WeakKeyDictionary[torch.nn.Module, TorchAttachment] = weakref.WeakKeyDictionary()


def on_grid(weight: torch.Tensor, bits: int) -> torch.Tensor:
    """``weight`` rounded to multiples of a step, one a channel of its first axis; zero stays zero."""
    largest = 2 ** (bits - 1) - 1
    step = weight.abs().flatten(1).amax(1).clamp_min(torch.finfo(weight.dtype).tiny) / largest
    step = step.reshape(-1, *[1] * (weight.ndim - 1))
    return (weight / step).round().clamp(-largest, largest) * step


class _Straight(torch.autograd.Function):
    """A weight on its grid; the gradient passes as if it were not."""

    @staticmethod
    def forward(context: Any, weight: torch.Tensor, bits: int) -> torch.Tensor:
        return on_grid(weight, bits)

    @staticmethod
    def backward(context: Any, *gradients: Any) -> Any:
        return gradients[0], None


class _OnGrid:
    """What a layer's class gets: its forward pass sees ``weight`` on the grid, gradients pass through.

    The parameter stays where it was, so ``parameters()`` and ``state_dict()`` are unchanged.
    """

    @property
    def weight(self) -> torch.Tensor:
        latent: torch.Tensor = self.__dict__["_parameters"]["weight"]
        attachment: TorchAttachment | None = self.__dict__[_OWNER]()
        # In evaluation it answers as the file would.
        if attachment is not None and self.__dict__["training"] and not attachment.sees_grid():
            return latent
        seen: torch.Tensor = _Straight.apply(latent, self.__dict__[_BITS])
        return seen

    def __deepcopy__(self, memo: dict[int, Any]) -> _OnGrid:
        other = type(self).__new__(type(self))
        memo[id(self)] = other
        other.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return other

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        """As the plain class with the weights that are used, so that files load without Lepton."""
        state = self.__dict__.copy()
        for name in (_BITS, _OWNER, _NAME):
            state.pop(name)
        parameters = state["_parameters"].copy()
        parameters["weight"] = torch.nn.Parameter(self.weight.detach(), parameters["weight"].requires_grad)
        state["_parameters"] = parameters
        return object.__new__, (type(self).__mro__[2],), state


_hooked: list[Any] = []
"""The handle of the one hook that hears of every optimiser's steps."""

_classes: dict[type, type] = {}


def _swapped(plain: type) -> type:
    """The class of the same name whose weights are seen on the grid; one for each plain class."""
    if plain not in _classes:
        body = {"__module__": plain.__module__, "__qualname__": plain.__qualname__, "__doc__": plain.__doc__}
        _classes[plain] = type(plain.__name__, (_OnGrid, plain), body)
    return _classes[plain]


class TorchAttachment(_size.Fitting):
    """The compression of one module."""

    def __init__(
        self, model: torch.nn.Module, plan: Plan, steps: int | None, keep: Mapping[str, float] | None, distil: float,
        average: bool,
    ) -> None:
        self.plan = plan
        self.distil = distil
        self._mean = Mean(steps) if average and plan.density < 1 and steps is not None else None
        self.teacher: torch.nn.Module | None = copy.deepcopy(model).eval().requires_grad_(False) if distil else None
        self.steps_total = steps
        self.left: list[tuple[str, str]] = []
        self._model = weakref.ref(model)
        self._done = 0
        self._stepped: weakref.WeakSet[torch.optim.Optimizer] = weakref.WeakSet()
        self._snapshot = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
        chosen: dict[str, torch.nn.Module] = {}
        shared = []
        for name, module in model.named_modules():
            if why := _why_left(module):
                self.left.append((name or type(module).__name__, why))
            elif isinstance(module, _COMPRESSED):
                first = next((one for one, other in chosen.items() if _latent(other) is _latent(module)), None)
                if first is None:
                    chosen[name or "weight"] = module
                else:
                    shared.append((first, module))
        _refuse_other_types(list(chosen.values()))
        frozen = [name for name, module in chosen.items() if not _latent(module).requires_grad]
        self.shares = plan.shares({name: _latent(module).numel() for name, module in chosen.items()}, keep, frozen)
        self.open = {name for name, share in self.shares.items() if share.density < 1 and name not in (keep or {})}
        for name, module in [*chosen.items(), *shared]:
            module.__dict__[_OWNER] = weakref.ref(self)
            module.__dict__[_NAME] = name
            module.__class__ = _swapped(type(module))
        self.grids_changed()
        self.fit_grid()

    def _every(self) -> list[torch.nn.Module]:
        """Every compressed layer, those too that share the weight of another."""
        model = self._model()
        return [] if model is None else [m for m in model.modules() if isinstance(m, _OnGrid)]

    def modules(self) -> list[tuple[str, torch.nn.Module]]:
        """Name and module of every compressed layer, of those that share a weight the first one."""
        first: dict[str, torch.nn.Module] = {}
        for module in self._every():
            first.setdefault(module.__dict__[_NAME], module)
        return list(first.items())

    def grids_changed(self) -> None:
        """Called where the bits of a layer's grid are others."""
        for module in self._every():
            module.__dict__[_BITS] = self.shares[module.__dict__[_NAME]].bits

    def layers(self) -> list[Layer]:
        """The compressed layers with what is kept of them now."""
        found = []
        for name, module in self.modules():
            weight = _latent(module).detach()
            kept = int(torch.count_nonzero(on_grid(weight, module.__dict__[_BITS])))
            found.append(Layer(name, weight.numel(), kept / max(weight.numel(), 1), module.__dict__[_BITS]))
        return found

    def steps_done(self) -> int:
        """Steps of optimisers that hold a compressed weight."""
        return self._done

    def prunes(self) -> bool:
        """True if a layer keeps less than all of its weights."""
        return any(share.density < 1 for share in self.shares.values())

    def parts(self) -> tuple[list[_size.Weights], int, int]:
        """A part of each layer's weights; numbers of the model; channels of the layers."""
        modules, model = self.modules(), self._model()
        total = sum(_latent(module).numel() for _, module in modules)
        weights = [_part(module, self.shares[name], name in self.open, total) for name, module in modules]
        each = [*model.parameters(), *model.buffers()] if model is not None else []
        every = sum(tensor.numel() for tensor in each if tensor.is_floating_point())
        return weights, every, sum(len(_latent(module)) for _, module in modules)

    def layers_in_all(self) -> int:
        """How many layers the model has, those without weights too."""
        model = self._model()
        return 0 if model is None else sum(1 for module in model.modules() if not any(module.children()))

    def _progress(self) -> float:
        """How far the pruning is, from 0 to 1."""
        if self.steps_total is None or not self.prunes():
            return 1.0
        begin, end = (share * self.steps_total for share in (_schedule.BEGIN, _schedule.END))
        return min(max((self._done - begin) / (end - begin), 0.0), 1.0)

    def kept(self, density: float) -> float:
        """The share to keep after the steps done so far of a layer that ends at ``density``."""
        return float(_schedule.kept(density, self._progress()))

    def sees_grid(self) -> bool:
        """Whether forward passes of the training see the grid: once the pruning is complete."""
        return self._progress() >= 1.0

    def after_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Masks the weights that ``optimizer`` has just changed. Optimisers that take turns count as one."""
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        weights = [(name, _latent(module)) for name, module in self.modules() if id(_latent(module)) in held]
        if not weights:
            return
        begins = not self._stepped or optimizer in self._stepped
        if begins:
            self._done, self._stepped = self._done + 1, weakref.WeakSet()
        self._stepped.add(optimizer)
        if begins and self.marks_passed(self._done):
            self.fit_shares()
        self._mask(optimizer, weights)
        if begins and self._mean is not None and self._mean.due(self._done):
            self._average(self._mean)
        if self._done == self.steps_total:
            self.fit_at_end(self._done)
            self._mask(optimizer, weights)

    def _mask(self, optimizer: torch.optim.Optimizer, weights: list[tuple[str, torch.nn.Parameter]]) -> None:
        """Keeps of each weight what is to be kept now."""
        for name, weight in weights:
            density = self.shares[name].density if name in self.shares else 1.0
            if density < 1:
                keep_largest(weight, self.kept(density), learning_channels(optimizer, weight))

    def _average(self, mean: Mean) -> None:
        """Adds the weights to the mean that the training ends with; after the last step they become the mean."""
        model = self._model()
        state = {} if model is None else model.state_dict()
        tensors = [tensor for tensor in state.values() if tensor.is_floating_point()]
        mean.add(self._done, [tensor.detach().float().cpu().numpy() for tensor in tensors])
        with torch.no_grad():
            for tensor, value in zip(tensors, mean.take(self._done)):
                tensor.copy_(torch.from_numpy(value))

    def distilled(self, loss: torch.Tensor, outputs: torch.Tensor, inputs: tuple[Any, ...]) -> torch.Tensor:
        """``loss`` and the distance to the teacher's answer, weighed."""
        assert self.teacher is not None, "asked only where there is one"
        with torch.no_grad():
            taught = torch.log_softmax(self.teacher(*inputs) / _TEMPERATURE, -1)
        found = torch.log_softmax(outputs / _TEMPERATURE, -1)
        distance = (taught.exp() * (taught - found)).sum(-1).mean() * _TEMPERATURE**2
        return (1 - self.distil) * loss + self.distil * distance

    @contextmanager
    def plainly(self) -> Iterator[None]:
        """The model as plain layers with the weights that are used."""
        latents, every = [], self._every()
        _refuse_other_types(every)
        try:
            for _, module in self.modules():
                weight = _latent(module)
                latents.append((weight, weight.detach().clone()))
                with torch.no_grad():
                    weight.copy_(on_grid(weight, module.__dict__[_BITS]))
            for module in every:
                module.__class__ = type(module).__mro__[2]
            yield
        finally:
            for module in every:
                module.__class__ = _swapped(type(module)) if not isinstance(module, _OnGrid) else type(module)
            with torch.no_grad():
                for weight, latent in latents:
                    weight.copy_(latent)


    @contextmanager
    def originally(self) -> Iterator[None]:
        """The model as plain layers with the weights it had when it was put under compression."""
        with self.plainly():
            model = self._model()
            state = {} if model is None else model.state_dict()
            now = {name: tensor.detach().clone() for name, tensor in state.items()}
            try:
                with torch.no_grad():
                    for name, tensor in state.items():
                        tensor.copy_(self._snapshot[name])
                yield
            finally:
                with torch.no_grad():
                    for name, tensor in state.items():
                        tensor.copy_(now[name])


def _latent(module: torch.nn.Module) -> torch.nn.Parameter:
    parameter: torch.nn.Parameter = module.__dict__["_parameters"]["weight"]
    return parameter


def _refuse_other_types(modules: list[torch.nn.Module]) -> None:
    """Raises an error where weights are no float32: files hold float32, and grids are finer than half precision."""
    other = next((module for module in modules if _latent(module).dtype != torch.float32), None)
    if other is not None:
        raise UsageError(f"a weight is {_latent(other).dtype}, not float32",
                         "call module.float(); torch.autocast computes in half precision all the same")


def _part(module: torch.nn.Module, share: Share, is_open: bool, total: int) -> _size.Weights:
    """A part of a module's weight, as the file has its rows and columns."""
    weight = _latent(module).detach().flatten(1).float().cpu().numpy()
    return _size.part_of(weight, 0, share.bits, None if is_open else share.density, total)


@torch.no_grad()
def keep_largest(weight: torch.Tensor, density: float, learning: torch.Tensor | None = None) -> None:
    """Sets all but about the largest ``density`` of the weights, at least one, to zero.

    The threshold is that of every n-th weight where there are many.

    Args:
        learning: For each channel of the first axis whether it learns; nothing is kept of the others. Default: all do.
    """
    # Before the pruning begins a channel may be idle and still wake up.
    if learning is not None and density < 1 and not learning.all():
        weight[~learning] = 0.0
    # Odd, so that it does not keep in step with channels.
    stride = 1 if weight.numel() <= _SAMPLE else weight.numel() // _SAMPLE | 1
    sample = weight.detach().reshape(-1)[::stride].abs()
    dropped = sample.numel() - max(round(density * sample.numel()), 1)
    if dropped > 0:
        threshold = sample.kthvalue(dropped).values
        weight.masked_fill_(weight.abs() <= threshold, 0.0)


@torch.no_grad()
def learning_channels(optimizer: torch.optim.Optimizer, weight: torch.Tensor) -> torch.Tensor | None:
    """Which channels of the first axis still learn, by the averages of gradients that ``optimizer`` keeps.

    A unit that a rectifier has switched off for every row gets no gradient any more, and never will: it is worth
    nothing, however large its weights are. ``None`` where the optimiser keeps no such average.
    """
    state = optimizer.state.get(weight, {})
    short = state.get("exp_avg", state.get("momentum_buffer"))
    if short is None or short.shape != weight.shape:
        return None
    now = _mean_of_columns(short.square())
    # Asked so that what is not a number counts as learning: it must not disappear.
    idle = now < _schedule.IDLE_BESIDE_OTHERS**2 * now.max()
    long = state.get("exp_avg_sq")
    if long is not None:
        idle &= now <= _schedule.IDLE_BESIDE_ITSELF**2 * _mean_of_columns(long)
    return ~idle


def _mean_of_columns(values: torch.Tensor) -> torch.Tensor:
    return values.flatten(1).mean(1)


def _why_left(module: torch.nn.Module) -> str:
    """Why a module with weights of its own is not compressed; empty where it is, or has none."""
    own = module.__dict__["_parameters"]
    if not any(parameter is not None and parameter.ndim > 1 for parameter in own.values()):
        return "its weight is computed from other parameters" if isinstance(module, _COMPRESSED) else ""
    if not isinstance(module, _COMPRESSED):
        return f"{type(module).__name__} is not one of the layers that are compressed in place"
    if not torch.is_floating_point(own["weight"]):
        return "its weights are not floats"
    computed = isinstance(getattr(type(module), "weight", None), property)
    return "its class computes `weight` itself" if computed else ""


def _after_step(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    for attachment in list(_attached.values()):
        attachment.after_step(optimizer)


def attached(model: torch.nn.Module) -> TorchAttachment | None:
    """The compression the module is under, if any."""
    return _attached.get(unwrapped(model))


def attach(
    model: torch.nn.Module, plan: Plan, steps: int | None, keep: Mapping[str, float] | None, distil: float = 0.0,
    average: bool = True,
) -> TorchAttachment:
    """Puts the module under compression."""
    model = unwrapped(model)
    if plan.density < 1 and steps is None:
        raise UsageError(
            f"{plan.ratio:g}x prunes to {plan.density:.1%}, gradually; a PyTorch loop does not say how long it is",
            "give steps=len(loader) * epochs",
        )
    if not any(isinstance(m, _COMPRESSED) and not _why_left(m) for m in model.modules()):
        raise UsageError("the module has no Linear or convolution to compress")
    attachment = TorchAttachment(model, plan, steps, keep, distil, average)
    if not _hooked:
        _hooked.append(register_optimizer_step_post_hook(_after_step))
    _attached[model] = attachment
    return attachment

