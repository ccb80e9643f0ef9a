"""A file that holds a model more than once: the weights in training and their average, a student and its teacher."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from math import prod

from msgspec import Struct, field

from ckptfix.inference.lexicon import concept
from ckptfix.inference.names import words_of
from ckptfix.tensors import Manifest, Shape, TensorSpec

_WRAPPER = re.compile(r"^(?:module\.|_orig_mod\.|model\.)*")
_SEPARATOR = re.compile(r"[./]")
_FOLLOWING = "ema teacher shadow average averaged avg swa polyak target momentum old frozen ref reference"
_AVERAGES = frozenset(_FOLLOWING.split())
_PARTS = frozenset(("encoder", "decoder", "visual", "text"))
"""Concepts of modules that are parts of one model, however alike."""
_SAVED = re.compile(r"(?P<module>(?:.*\.)?)modules_to_save\.[^.]+\.(?P<rest>.+)")
_LEAST = 3
"""Tensors: fewer are no model."""
_LARGER = 1.75
"""A target that is larger than a copy by this may hold two."""
_OF_LARGER = 0.8
"""Of the elements of the larger of two copies, what the smaller has: a predictor or running statistics may lack."""

Inside = frozenset[tuple[str, Shape]]
"""The tensors of a module: the path inside, freed of wrappers and dots, and the shape."""


class _Module(Struct, frozen=True):
    """The path of a module with the separator after it, what is inside, and how many elements it has."""

    prefix: str
    inside: Inside
    size: int

    @property
    def path(self) -> list[str]:
        return _SEPARATOR.split(self.prefix)[:-1]


class Single(Struct):
    """A checkpoint of which one copy is left, and whatever is beside the copies.

    `notes` say what was chosen, `doubts` what no name chose, both for the keys that they are about.
    """

    kept: Manifest
    notes: dict[str, frozenset[str]] = field(default_factory=dict)
    doubts: dict[str, frozenset[str]] = field(default_factory=dict)


def keep_one(have: Manifest, want: Manifest) -> Single:
    """Leave one copy of what the checkpoint holds more than once; copies may hold copies."""
    replaced = find_replaced(have, want)
    single = Single(Manifest({key: spec for key, spec in have.items() if key not in replaced}))
    if replaced:
        note = "'modules_to_save' is used, which was trained; 'original_module', which it replaces, is dropped"
        single.notes[note] = frozenset(replaced.values())
    while copies := find_copies(single.kept, want):
        chosen = choose_copy(copies, want)
        head = chosen or next(iter(copies))
        times = f"the file holds the model {len(copies)} times"
        if chosen is None:
            single.doubts[f"{times}, as {', '.join(map(repr, copies))}: drop all but one"] = frozenset(copies[head])
        else:
            others = ", ".join(repr(other) for other in copies if other != head)
            single.notes[f"{times}: '{head}' is used, {others} dropped"] = frozenset(copies[head])
        dropped = {key for other, keys in copies.items() if other != head for key in keys}
        single.kept = Manifest({key: spec for key, spec in single.kept.items() if key not in dropped})
    return single


def find_copies(tensors: Mapping[str, TensorSpec], want: Mapping[str, TensorSpec]) -> dict[str, list[str]]:
    """Give the keys of each copy of a model by the path of its keys; nothing where there is one model only.

    Of all copies, the outermost are given. Each is nearly as large as the target: two equal towers of a target are no
    copies of it.
    """
    wanted = floats(want)
    fewest, smallest = len(wanted) / _LARGER, sum(spec.numel for spec in wanted.values()) / _LARGER
    modules: list[_Module] = []
    for prefix, keys in subtrees(floats(tensors)).items():
        size = sum(tensors[key].numel for key in keys)
        if len(keys) >= _LEAST and len(keys) > fewest and size > smallest:
            modules.append(_Module(prefix, look_inside(prefix, keys, tensors), size))
    for module in sorted(modules, key=lambda module: len(module.path)):
        copies = [module]
        for other in modules:
            if _are_alike(module, other) and not any(_overlap(other, known) for known in copies):
                copies.append(other)
        if len(copies) > 1 and not _are_parts([known.prefix for known in copies]):
            heads = [known.prefix for known in modules if known in copies]
            return {head[:-1]: [key for key in tensors if key.startswith(head)] for head in heads}
    return {}


def choose_copy(copies: Iterable[str], want: Iterable[str]) -> str | None:
    """Choose the copy that the target names, else the one that was trained, where the others are averages; else None.

    MoCo trains the encoder of the queries, and averages it for the keys.
    """
    words = own_words(copies)
    modules = [key.rpartition(".")[0] for key in want]
    named = [head for head in words if _is_named(head, words[head], modules)]
    chosen = named or [head for head in words if not _is_average(words, head)]
    return chosen[0] if len(chosen) == 1 else None


def find_replaced(tensors: Collection[str], want: Iterable[str]) -> dict[str, str]:
    """Give the keys of modules that PEFT trained whole, by those of the originals, which it keeps beside them.

    Nothing is replaced for a target that has both itself.
    """
    if any("modules_to_save." in key for key in want):
        return {}
    matches = ((key, match) for key in tensors if (match := _SAVED.fullmatch(key)))
    saved = {f"{match['module']}original_module.{match['rest']}": key for key, match in matches}
    return {original: key for original, key in saved.items() if original in tensors}


def floats(tensors: Mapping[str, TensorSpec]) -> dict[str, TensorSpec]:
    """Leave out counters and flags, which only some copies have."""
    return {key: spec for key, spec in tensors.items() if spec.shape and spec.dtype.kind == "float"}


def subtrees(keys: Iterable[str]) -> dict[str, list[str]]:
    """List the keys of each module, by its path and the separator after it."""
    found: dict[str, list[str]] = {}
    for key in keys:
        for separator in _SEPARATOR.finditer(key):
            found.setdefault(key[: separator.end()], []).append(key)
    return found


def look_inside(prefix: str, keys: Iterable[str], tensors: Mapping[str, TensorSpec]) -> Inside:
    """Describe a module without its path. Some averages are saved under names without dots."""
    rests = ((_WRAPPER.sub("", key[len(prefix) :]), tensors[key].shape) for key in keys)
    return frozenset((_SEPARATOR.sub("", rest), shape) for rest, shape in rests)


def own_words(heads: Iterable[str]) -> dict[str, set[str]]:
    """Give the words that tell each path from the others: not all have them."""
    words = {head: set(words_of(head)) for head in heads}
    shared = set.intersection(*words.values())
    return {head: own - shared for head, own in words.items()}


def _are_alike(one: _Module, other: _Module) -> bool:
    """Tell copies: the larger has all that the smaller has, or one is called an average of the other.

    The equal blocks of two towers that are not alike are no copies.
    """
    largest = max(one.size, other.size)
    if min(one.size, other.size) < _OF_LARGER * largest:
        return False
    shared = one.inside & other.inside
    if sum(prod(shape) for _, shape in shared) < _OF_LARGER * largest:
        return False
    words = own_words((one.prefix, other.prefix))
    if any(_is_average(words, prefix) for prefix in words):
        return True
    return shared in (one.inside, other.inside) and one.path[-1] != other.path[-1]


def _overlap(one: _Module, other: _Module) -> bool:
    return one.prefix.startswith(other.prefix) or other.prefix.startswith(one.prefix)


def _are_parts(heads: Iterable[str]) -> bool:
    """Tell parts of one model, of which only some say so, from copies: the `blocks` and `decoder_blocks` of MAE."""
    words = own_words(heads)
    parts = [not _PARTS.isdisjoint(map(concept, own)) for own in words.values()]
    return any(parts) and not all(parts) and not any(_is_average(words, head) for head in words)


def _is_named(head: str, words: Collection[str], modules: Sequence[str]) -> bool:
    """Tell whether most of the target's modules are below this path, or have a word of its own."""
    concepts = set(map(concept, words))
    called = [
        f"{module}.".startswith(f"{head}.") or any(concept(word) in concepts for word in words_of(module))
        for module in modules
    ]
    return 2 * sum(called) > len(called)


def _is_average(words: Mapping[str, set[str]], head: str) -> bool:
    """Tell an average, or whatever else follows the weights in training, by its own words and the others'."""
    own = words[head]
    others = {word for other, known in words.items() if other != head for word in known}
    if own & {"k", "key"}:
        return bool(others & {"q", "query"})
    if own == {"m"}:
        return not others
    return bool(own & (_AVERAGES - ({"target"} if others & {"source", "src"} else set())))
