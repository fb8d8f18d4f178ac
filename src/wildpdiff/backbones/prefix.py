"""The prefix of a model: what is computed before the first adapted module, found by hooks and computed once.

No adapter can change what is computed before the first module that takes one. The submodules that finish before are
found in one traced run; of their outputs only those are kept that later computation reads (found by a gradient), and
a copy of the model replays them. Nothing has to be written on the model: it may be any ``nn.Module`` whose forward
calls its submodules in the same order for all inputs of one shape. Operations between submodules run again.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from wildpdiff.tasks.batch import Batch

KEY = "prefix:"
"""Begins the names of kept outputs in a batch; the submodule's name follows."""

_replayed: ContextVar[Batch] = ContextVar("_replayed")


@dataclass(frozen=True)
class Prefix:
    """Submodules that run before the first adapted module, for inputs of one shape.

    Attributes:
        live: names of submodules whose outputs later computation reads.
        dead: shapes ``[…]`` of one example's output, by name, of submodules whose outputs only the prefix reads.
        unread: shapes of one example's input, by name, of floating-point inputs that only the prefix reads.
        written: names of inputs that the model changes in place; it is given copies of them.
        first: names of linear layers of whose inputs "n t f" the outputs read the first of the t tokens alone, as
            those of a classifier of one token do in the last layer.
    """

    live: tuple[str, ...] = ()
    dead: tuple[tuple[str, tuple[int, ...]], ...] = ()
    unread: tuple[tuple[str, tuple[int, ...]], ...] = ()
    written: tuple[str, ...] = ()
    first: tuple[str, ...] = ()

    def kept(self, inputs: Batch, outputs: Batch) -> dict[str, Tensor]:
        """The part of a batch that is kept for :func:`replay`: inputs that are read later, and live outputs."""
        without = {name for name, _ in self.unread}
        return {name: value for name, value in inputs.items() if name not in without} | {
            f"{KEY}{name}": outputs[name] for name in self.live
        }


def find_prefix(module: nn.Module, inputs: Batch, adapted: Collection[str]) -> Prefix:
    """The prefix of a model, found in two runs on a few examples; empty where replaying would change the output.

    Args:
        module: in evaluation mode; called with the inputs as keyword arguments, gives a tensor or an object with
            ``logits``.
        inputs: two examples or more.
        adapted: names of the modules that adapters change.
    """
    given = _copies(inputs)
    with torch.no_grad():
        expected = outputs_of(module(**given))
    none = Prefix(written=tuple(name for name, value in given.items() if value._version))
    changed: set[str] = set()
    while finished := _finished_before(module, inputs, adapted, changed):
        try:
            live, read, again = _live(module, inputs, finished)
        except RuntimeError:  # frozen operations that have no gradient
            return none
        if not again:
            break
        changed |= again
    if not finished or not live or none.written:
        return none
    prefix = Prefix(
        live=tuple(name for name in finished if name in live),
        dead=tuple((name, tuple(value.shape[1:])) for name, value in finished.items() if name not in live),
        unread=tuple(
            (name, tuple(value.shape[1:]))
            for name, value in inputs.items()
            if value.is_floating_point() and name not in read
        ),
    )
    with torch.no_grad(), overridden(module, finished.keys()) as model:
        replayed = replay(model, prefix, prefix.kept(inputs, finished))
    # Operations that pass on no gradient (an argmax, say) may hide that an output is read.
    same = torch.allclose(replayed, expected, rtol=1e-5, atol=1e-6, equal_nan=True)
    return prefix if same else none


def compute_prefix(module: nn.Module, prefix: Prefix, inputs: Batch) -> dict[str, Tensor]:
    """Inputs as a batch for :func:`replay`, the prefix's live outputs computed without gradient."""
    found: dict[str, Tensor] = {}

    def keep(name: str, output: Tensor) -> None:
        found[name] = output
        if len(found) == len(prefix.live):
            raise _Stop

    hooks = [
        module.get_submodule(name).register_forward_hook(lambda _, __, output, name=name: keep(name, output))
        for name in prefix.live
    ]
    try:
        if hooks:
            with torch.no_grad():
                module(**_copies(inputs))
    except _Stop:
        pass
    finally:
        for hook in hooks:
            hook.remove()
    return prefix.kept(inputs, found)


def replay(model: nn.Module, prefix: Prefix, batch: Batch, call: Any = None) -> Tensor:
    """Outputs of a model that :func:`install` has prepared, from a batch of :func:`compute_prefix`.

    Args:
        model: the prepared copy.
        prefix: of the model.
        batch: ``[n, …]``.
        call: called with the model's keyword arguments in place of the model, for ``functional_call``.
    """
    inputs = {name: value for name, value in batch.items() if not name.startswith(KEY)}
    inputs |= _copies({name: inputs[name] for name in prefix.written})
    some = next(iter(batch.values()))
    inputs |= {name: _filler(some, shape) for name, shape in prefix.unread}
    outputs = {name: batch[f"{KEY}{name}"] for name in prefix.live}
    outputs |= {name: _filler(some, shape) for name, shape in prefix.dead}
    token = _replayed.set(outputs)
    try:
        return outputs_of((call or model)(**inputs))
    finally:
        _replayed.reset(token)


def install(model: nn.Module, names: Collection[str]) -> None:
    """Replace submodules of a model by such that replay an output; the model is a copy of its own."""
    for name in names:
        parent, _, own = name.rpartition(".")
        kind = type(model.get_submodule(name))
        # A shallow copy of the same kind: forwards may read a submodule's attributes (the type of a weight, say).
        part = copy.copy(model.get_submodule(name))
        part.__class__ = type(f"_Replay{kind.__name__}", (_Replay, kind), {})
        part._forward_hooks, part._forward_pre_hooks = OrderedDict(), OrderedDict()
        assert isinstance(part, _Replay)
        part.replays = name
        setattr(model.get_submodule(parent), own, part)


@contextmanager
def overridden(model: nn.Module, names: Collection[str]) -> Iterator[nn.Module]:
    """A model with some submodules replaced as by :func:`install`, restored at the end."""
    kept = {name: model.get_submodule(name) for name in names}
    try:
        install(model, names)
        yield model
    finally:
        for name, module in kept.items():
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, module)


def first_only(model: nn.Module, outputs: Callable[[], Tensor]) -> tuple[str, ...]:
    """The :attr:`Prefix.first` of a model, found by a gradient and then by trial.

    Args:
        model: whose linear layers are tried.
        outputs: runs it on a few examples, with a gradient by what an adapter changes.
    """
    made: dict[str, list[Tensor]] = {}

    def keep(name: str, output: Tensor) -> None:
        made.setdefault(name, []).append(output)
        if output.requires_grad:
            output.retain_grad()

    layers = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, nn.Linear)]
    hooks = [layer.register_forward_hook(lambda _, __, output, name=name: keep(name, output)) for name, layer in layers]
    kept: list[str] = []
    try:
        with torch.enable_grad():
            expected = outputs()
            weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(0))
            torch.autograd.backward((expected * weights.to(expected)).sum())
    except RuntimeError:  # operations that have no gradient
        return ()
    finally:
        for hook in hooks:
            hook.remove()
    for name, found in made.items():
        slope = found[0].grad if len(found) == 1 and found[0].ndim == 3 else None
        if slope is None or slope.shape[1] < 2 or bool(slope[:, 1:].any()) or not bool(slope.any()):
            continue
        hooks = only_first(model, (*kept, name))
        try:
            with torch.no_grad():
                again = outputs()
        except (IndexError, RuntimeError, TypeError, ValueError):  # the shape is needed whole
            continue
        finally:
            for hook in hooks:
                hook.remove()
        if again.shape == expected.shape and torch.allclose(again, expected, rtol=1e-4, atol=1e-5):
            kept.append(name)
    return tuple(kept)


def only_first(model: nn.Module, names: Iterable[str]) -> list[RemovableHandle]:
    """Let layers of :func:`first_only` compute the first token alone; what is added to others broadcasts it."""
    return [model.get_submodule(name).register_forward_pre_hook(_first_token) for name in names]


def _first_token(_: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
    return (given[0][:, :1], *given[1:])


def outputs_of(result: Any) -> Tensor:
    """The tensor of a model's result: itself, its ``logits``, or its first element; else raises ``TypeError``."""
    found = result
    if isinstance(result, Mapping):
        found = result.get("logits", next(iter(result.values()), None))
    elif not isinstance(result, Tensor):
        logits = getattr(result, "logits", None)
        found = logits if logits is not None or not isinstance(result, Sequence) else next(iter(result), None)
    if not isinstance(found, Tensor):
        raise TypeError(f"the model gives a {type(result).__name__} without a tensor as logits or first element")
    return found


def _copies(tensors: Batch) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in tensors.items()}


class _Replay(nn.Module):
    """A submodule that gives the output of the current :func:`replay`, whatever it is called with."""

    replays: str

    def forward(self, *_: Any, **__: Any) -> Tensor:
        """The output."""
        return _replayed.get()[self.replays]


class _Stop(Exception):
    """Ends a run whose live outputs are all there."""


def _filler(some: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Zeros without memory of their own, as the output of a submodule that nobody reads."""
    return torch.zeros((), device=some.device).expand(some.shape[0], *shape)


def _finished_before(
    module: nn.Module, inputs: Batch, adapted: Collection[str], changed: Collection[str]
) -> dict[str, Tensor]:
    """Outputs of the outermost submodules that finish before the first adapted one starts, by name, in order.

    Those in ``changed``, which later operations change in place, are left out.
    """
    events: list[tuple[str, str, Any]] = []
    hooks = []
    for name, part in module.named_modules():
        hooks.append(part.register_forward_pre_hook(lambda _, __, name=name: events.append(("start", name, None))))
        hooks.append(part.register_forward_hook(lambda _, __, out, name=name: events.append(("end", name, out))))
    try:
        with torch.no_grad():
            module(**_copies(inputs))
    finally:
        for hook in hooks:
            hook.remove()
    count = next(iter(inputs.values())).shape[0]
    starts = [name for what, name, _ in events if what == "start"]
    first = next((at for at, (what, name, _) in enumerate(events) if what == "start" and name in adapted), len(events))
    found = {
        name: output
        for what, name, output in events[:first]
        if what == "end"
        and name
        and name not in changed
        and starts.count(name) == 1
        and isinstance(output, Tensor)
        and output.is_floating_point()
        and output.ndim > 0
        and output.shape[0] == count
    }
    return {name: output for name, output in found.items() if not any(name.startswith(f"{other}.") for other in found)}


def _live(module: nn.Module, inputs: Batch, finished: dict[str, Tensor]) -> tuple[set[str], set[str], set[str]]:
    """Names of finished submodules and of floating-point inputs that the rest of the computation reads.

    The third are those of finished submodules whose outputs it changes in place.
    """
    leaves = {name: value.detach().clone().requires_grad_(True) for name, value in finished.items()}
    given = {
        name: value.detach().clone().requires_grad_(True) if value.is_floating_point() else value
        for name, value in inputs.items()
    }
    with torch.enable_grad(), overridden(module, finished.keys()) as model:
        # Copies, since leaves cannot be changed in place.
        copies = _copies(leaves)
        token = _replayed.set(copies)
        try:
            found = outputs_of(model(**_copies(given)))
        finally:
            _replayed.reset(token)
        changed = {name for name, value in copies.items() if value._version}
        if not changed:
            torch.autograd.backward(found.sum())
    return (
        {name for name, value in leaves.items() if value.grad is not None},
        {name for name, value in given.items() if value.is_floating_point() and value.grad is not None},
        changed,
    )
