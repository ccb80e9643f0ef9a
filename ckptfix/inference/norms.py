"""Norms whose modules are known to correspond, and whose parameters something other than their names tells apart."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from msgspec import Struct
from msgspec.structs import replace

from ckptfix.inference.infer import Inference
from ckptfix.inference.leaders import read_leaders
from ckptfix.inference.link import Evidence, Link
from ckptfix.inference.names import ParamKind, parent_of, read_name
from ckptfix.inference.reading import read_keys
from ckptfix.tensors import Manifest, TensorSpec

Kinds = Mapping[str, ParamKind]
"""Which parameter the last word of a key stands for."""
Leaders = Mapping[str, str]
"""The weight that each vector goes with, by their keys."""

_EVIDENCE = frozenset[Evidence](("values",))
_INSIDE = re.compile(r"(?<![^./])(?:(?![0-9]+[./])[^./]+[./])*[^./]*$")
"""What follows the last number in the path of a module: the path inside its block."""


class Norm(Struct, frozen=True):
    """A module of vectors of one length and at most one counter: its keys by their last words."""

    module: str
    vectors: Mapping[str, str]
    counter: str | None

    @property
    def words(self) -> frozenset[str]:
        """The last words of its vectors: norms that share them are of one kind."""
        return frozenset(self.vectors)

    @property
    def is_named(self) -> bool:
        """Whether a name says which parameter one of its vectors is."""
        return any(read_name(key).kind for key in self.vectors.values())

    def parameters(self, kinds: Kinds) -> dict[ParamKind, str]:
        """Give the keys of its parameters, as `kinds` has them, else as their names say."""
        found = {kinds.get(word) or read_name(key).kind: key for word, key in self.vectors.items()}
        return found | ({"count": self.counter} if self.counter else {})


def find_norms(tensors: Mapping[str, TensorSpec]) -> dict[str, Norm]:
    """Find the modules that may be norms: two or four vectors of one length, and at most one counter."""
    modules: dict[str, dict[str, str]] = {}
    for key in tensors:
        module, word = split_key(key)
        modules.setdefault(module, {})[word] = key
    norms: dict[str, Norm] = {}
    for module, members in modules.items():
        vectors = {word: key for word, key in members.items() if tensors[key].dtype.kind == "float"}
        others = [key for word, key in members.items() if word not in vectors]
        shapes = {tensors[key].shape for key in vectors.values()}
        counted = len(others) < 2 and all(tensors[key].shape == () for key in others)
        if module and len(vectors) in (2, 4) and [len(shape) for shape in shapes] == [1] and counted:
            norms[module] = Norm(module, vectors, others[0] if others else None)
    return norms


def split_key(key: str) -> tuple[str, str]:
    """Give the module of a key, and its last word."""
    module = parent_of(key)
    return module, key[len(module) :].lstrip("./")


def link_norms(found: Inference, have: Manifest, want: Manifest, told: Kinds) -> Inference:
    """Link the open parameters of norms that correspond; `told` says what the last words of the source mean.

    A norm that is linked leaves the others fewer to be: this goes on until nothing is linked any more.
    """
    if not told:
        return found
    leaders = _find_leaders(have), _find_leaders(want)
    while links := _link_known(_Known(found, have, want, told, leaders)):
        used = {key for link in links for key in link.source_keys}
        made = {key for link in links for key in link.target_keys}
        found = replace(
            found,
            links=[*found.links, *links],
            left_sources={key: spec for key, spec in found.left_sources.items() if key not in used},
            left_targets={key: spec for key, spec in found.left_targets.items() if key not in made},
        )
    return found


def _link_known(known: _Known) -> list[Link]:
    left = known.found.left_targets
    links: list[Link] = []
    for source, target in _pair(known):
        given = source.parameters(known.told)
        links += [
            Link.rename(given[kind], key, confidence=0.9, why="by its values", evidence=_EVIDENCE)
            for kind, key in target.parameters({}).items()
            if kind in given and key in left and known.have[given[kind]].shape == known.want[key].shape
        ]
    return links


def _pair(known: _Known) -> Iterator[tuple[Norm, Norm]]:
    """Give the norms that correspond, source and target: each the only one that the other may be."""
    sources = {module: norm for module, norm in find_norms(known.have).items() if norm.words <= known.told.keys()}
    targets = find_norms(known.want)
    alone = _list_alone(sources, known.found.left_sources), _list_alone(targets, known.found.left_targets)
    chosen: dict[str, list[Norm]] = {}
    for target in targets.values():
        module = known.counterpart(target)
        if module in sources:
            chosen.setdefault(module, []).append(target)
    for module, rivals in chosen.items():
        source, target = sources[module], rivals[0]
        alike = {known.told[word] for word in source.words} == target.parameters({}).keys() - {"count"}
        led = known.is_led(source, target)
        if len(rivals) == 1 and alike and (led or (led is None and module in alone[0] and target.module in alone[1])):
            yield source, target


def _list_alone(norms: Mapping[str, Norm], left: Mapping[str, TensorSpec]) -> set[str]:
    """List the norms that are the only open one of their length in their block, or outside all blocks."""
    groups: dict[object, list[str]] = {}
    for norm in norms.values():
        specs = [left[key] for key in norm.vectors.values() if key in left]
        if specs:
            groups.setdefault((_INSIDE.sub("", norm.module), specs[0].shape), []).append(norm.module)
    return {group[0] for group in groups.values() if len(group) == 1}


class _Known:
    """What was found of the places of norms."""

    def __init__(
        self, found: Inference, have: Manifest, want: Manifest, told: Kinds, leaders: tuple[Leaders, Leaders]
    ) -> None:
        self.found = found
        self.have, self.want = have, want
        self.told = told
        self.leaders = leaders
        self.links = {key: link for link in found.links for key in link.target_keys}
        self.guesses = {key: guess for guess in found.guesses for key in guess.link.target_keys}

    def counterpart(self, target: Norm) -> str | None:
        """Give the one source module that each parameter of a norm comes from or may come from."""
        modules: list[set[str]] = []
        for kind, key in target.parameters({}).items():
            if key in self.links:
                modules.append({split_key(source)[0] for source in self.links[key].source_keys})
            elif key in self.guesses and (self.guesses[key].by_blocks or not self.guesses[key].rivals):
                return None  # open for another reason than its rivals
            elif key in self.guesses:
                split = [split_key(source) for source in self.guesses[key].candidates]
                modules.append({module for module, word in split if self.told.get(word, kind) == kind})
        sure = {next(iter(open_)) for open_ in modules if len(open_) == 1}
        module = sure.pop() if len(sure) == 1 else None
        return module if all(module in open_ for open_ in modules) else None

    def is_led(self, source: Norm, target: Norm) -> bool | None:
        """Tell whether the weights that two norms go with correspond; None where that is not known.

        A norm does not go before the convolution that it follows; where that went, names and order brought the norm.
        """
        one, other = _leader_of(source, self.leaders[0]), _leader_of(target, self.leaders[1])
        convolved = other is not None and len(self.want[other].shape) > 2
        if other is None or other not in self.links:
            return False if convolved else None
        return (convolved or None) if one is None else one in self.links[other].source_keys


def _leader_of(norm: Norm, leaders: Leaders) -> str | None:
    return next((leaders[key] for key in norm.vectors.values() if key in leaders), None)


def _find_leaders(manifest: Manifest) -> Leaders:
    """Give the weight that each vector goes with, by their keys."""
    reads = read_keys(manifest)
    keys = {text: key for key, text in reads.items()}
    return {keys[place]: keys[leader] for place, leader in read_leaders(manifest, reads).items()}
