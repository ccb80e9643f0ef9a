"""Freeze a part of a module so that training cannot move it, and prove that nothing moved.

A frozen parameter needs no gradient. A frozen buffer is protected by its module: a module that owns one, and a
BatchNorm that owns any frozen tensor, is *held* in eval mode, and `model.train()` leaves it there. Otherwise
running statistics drift although no parameter trains (pytorch#86590).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from types import MethodType
from typing import Literal

import torch
from msgspec import Struct
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ckptfix.digest import hash_chunks
from ckptfix.errors import InvalidCall, UnmatchedPattern
from ckptfix.keys import KeyPattern, nearest_keys

Kind = Literal["frozen", "partial", "unfrozen", "scratch"]
_KINDS = "frozen, partial:PATTERN, unfrozen, scratch"


class Policy(Struct, frozen=True):
    """What trains: `name` as the user wrote it, and the module patterns of a `partial:`."""

    name: str
    kind: Kind
    patterns: tuple[KeyPattern, ...] = ()

    def __str__(self) -> str:
        return self.name


def parse_policy(text: str) -> Policy:
    """Read `frozen`, `partial:PATTERN[,PATTERN…]`, `unfrozen` or `scratch`. Raises InvalidCall, PatternError."""
    match text.partition(":"):
        case ("frozen" | "unfrozen" | "scratch") as kind, "", "":
            return Policy(text, kind)
        case "partial", _, body if body:
            patterns = tuple(KeyPattern.parse(part.strip()) for part in _split_commas(body))
            for pattern in patterns:
                pattern.check()
            return Policy(text, "partial", patterns)
        case "partial", _, _:
            raise InvalidCall("'partial:' names no module", hint="write partial:PATTERN, as in partial:features")
    raise InvalidCall(f"'{text}' is no policy", hint=f"one of {_KINDS}")


def _split_commas(text: str) -> list[str]:
    """Split at the commas outside braces: those inside belong to a placeholder's regex."""
    parts, depth, start = [], 0, 0
    for position, letter in enumerate(text):
        depth += (letter == "{") - (letter == "}")
        if letter == "," and depth == 0:
            parts.append(text[start:position])
            start = position + 1
    return [*parts, text[start:]]


@dataclass(frozen=True)
class Frozen:
    """A module under a policy. `keys` are its frozen parameters and buffers, by their names in the state dict,
    `trainable` the parameters that train, `held` the modules that stay in eval mode.
    """

    model: nn.Module = field(repr=False)
    policy: Policy
    keys: tuple[str, ...]
    trainable: tuple[str, ...]
    held: tuple[str, ...]
    _gradients: Mapping[str, bool] = field(repr=False)

    def parameters(self) -> list[nn.Parameter]:
        """List what an optimizer should be given: each trainable parameter once."""
        return [parameter for _, parameter in self.named_parameters()]

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Give each trainable parameter with its key."""
        trainable = set(self.trainable)
        for key, parameter in self.model.named_parameters():
            if key in trainable:
                yield key, parameter

    def digests(self) -> dict[str, str]:
        """Hash the bytes of every frozen parameter and buffer as they are now."""
        tensors = _tensors(self.model)
        return {key: digest_tensor(tensors[key]) for key in self.keys if key in tensors}

    def drifted(self, before: Mapping[str, str]) -> list[str]:
        """List the frozen keys whose bytes differ from the snapshot `before`, or that are gone."""
        now = self.digests()
        return [key for key in self.keys if now.get(key) != before.get(key)]

    def release(self) -> None:
        """Undo the freeze: gradients as they were, and `train()` reaches every module again."""
        for module in self.model.modules():
            if _let_go(module):
                module.training = self.model.training
        for key, parameter in self.model.named_parameters():
            if key in self._gradients:
                parameter.requires_grad_(self._gradients[key])


def freeze(model: nn.Module, policy: Policy | str, *, filled: Collection[str] | None = None) -> Frozen:
    """Put `model` under a policy, in place. `filled`: the keys that the receipt calls filled; None without one.

    `frozen` trains the filled keys alone, `partial:` all but the named modules, `unfrozen` and `scratch`
    everything (a random start is the caller's to make). A tensor under two keys, one of them frozen, is frozen.
    Gradients left over on a frozen parameter are dropped, or an optimizer's step would still apply them.
    Raises InvalidCall where nothing would train, UnmatchedPattern for a pattern or filled key without a match.
    """
    policy = parse_policy(policy) if isinstance(policy, str) else policy
    if isinstance(filled, str):
        raise InvalidCall(f"filled is a collection of keys, not the text '{filled}'", hint="filled={'fc.weight', ...}")
    chosen = _choose(model, policy, filled)
    tensors = _tensors(model)
    pinned = {id(tensors[key]) for key in chosen}
    keys = tuple(key for key, tensor in tensors.items() if id(tensor) in pinned)
    parameters = {key: p for key, p in model.named_parameters() if p.is_floating_point() or p.is_complex()}
    trainable = tuple(key for key, parameter in parameters.items() if id(parameter) not in pinned)
    if not trainable:
        raise InvalidCall(f"'{policy}' leaves no parameter to train", hint=_offer(model))
    held = tuple(path for path, module in model.named_modules() if _must_hold(module, pinned))
    gradients = {key: parameter.requires_grad for key, parameter in parameters.items()}
    for parameter in parameters.values():
        parameter.requires_grad_(id(parameter) not in pinned)
        if id(parameter) in pinned:
            parameter.grad = None
    for path, module in model.named_modules():
        _let_go(module)
        if path in held:
            _hold(module)
    return Frozen(model, policy, keys, trainable, held, gradients)


def digest_tensor(tensor: Tensor) -> str:
    """Hash the elements of a dense tensor, row-major, whatever its device and strides."""
    plain = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous().reshape(-1)
    return hash_chunks([plain.view(torch.uint8).numpy().data])


def _choose(model: nn.Module, policy: Policy, filled: Collection[str] | None) -> set[str]:
    """Find the keys that the policy names as frozen."""
    match policy.kind:
        case "partial":
            return {key for pattern in policy.patterns for key in _match_modules(model, pattern)}
        case "frozen":
            return _loaded(model, filled)
        case "unfrozen" | "scratch":
            return set()


def _loaded(model: nn.Module, filled: Collection[str] | None) -> set[str]:
    keys = _tensors(model)
    if not filled:
        reason = "its receipt calls nothing filled" if filled is not None else "it has no receipt of what was filled"
        offer = f"{_offer(model)}; or pass filled=" if filled is None else _offer(model)
        raise InvalidCall(f"'frozen' finds nothing in the checkpoint to train: {reason}", hint=offer)
    if unknown := sorted(set(filled) - set(keys)):
        near = nearest_keys(unknown[0], keys)
        hint = f"nearest: {', '.join(near)}" if near else None
        raise UnmatchedPattern(f"'{unknown[0]}' was filled, but the architecture has no such key", hint=hint)
    return set(keys) - set(filled)


def _offer(model: nn.Module) -> str:
    """Word the hint that offers `partial:`, with modules that this model really has."""
    owners = [path for path, child in model.named_children() if next(child.parameters(), None) is not None]
    examples = " or ".join(f"partial:{path}" for path in owners[:2]) if len(owners) > 1 else "partial:PATTERN"
    return f"say which modules to freeze, as in {examples}"


def _match_modules(model: nn.Module, pattern: KeyPattern) -> set[str]:
    """Find the keys under the modules that a pattern names."""
    modules = [path for path, _ in model.named_modules(remove_duplicate=False) if path]
    matched = [path for path in modules if pattern.match(path) is not None]
    keys = _tensors(model)
    if not matched:
        if inside := next((key for key in keys if pattern.match(key) is not None), None):
            owner = inside.rpartition(".")[0]
            hint = f"a policy names modules, not tensors: '{owner}' owns '{inside}'" if owner else None
        else:
            near = nearest_keys(pattern.text, modules)
            hint = f"nearest: {', '.join(near)}" if near else _offer(model)
        raise UnmatchedPattern(f"'partial:{pattern}' names no module", hint=hint)
    prefixes = tuple(f"{path}." for path in matched)
    found = {key for key in keys if key.startswith(prefixes)}
    if not found:
        raise UnmatchedPattern(f"'partial:{pattern}' names only modules without tensors, as {matched[0]}")
    return found


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """Give every parameter and buffer that a state dict holds, ties under each of their keys."""
    found: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
    for path, module in model.named_modules(remove_duplicate=False):
        prefix = f"{path}." if path else ""
        for name, buffer in module.named_buffers(recurse=False):
            if name not in module._non_persistent_buffers_set:
                found[prefix + name] = buffer
    return found


def _must_hold(module: nn.Module, pinned: set[int]) -> bool:
    """Tell whether training mode could move a frozen tensor of this very module."""
    owned = list(module.buffers(recurse=False))
    if isinstance(module, _BatchNorm):
        owned += module.parameters(recurse=False)
    return any(id(tensor) in pinned for tensor in owned)


def _hold(module: nn.Module) -> None:
    # On the instance, as a bound method: `copy.deepcopy` then rebinds it to the copy, and pickle finds it by name.
    module.__dict__["train"] = MethodType(train, module)
    module.training = False


def train(module: nn.Module, mode: bool = True) -> nn.Module:
    """Stand in for `train` of a held module: pass the mode on to its children and stay in eval mode."""
    type(module).train(module, mode)
    module.training = False
    return module


def _let_go(module: nn.Module) -> bool:
    """Remove our `train` from a module; tell whether it was there."""
    held = getattr(module.__dict__.get("train"), "__func__", None) is train
    if held:
        del module.__dict__["train"]
    return held
