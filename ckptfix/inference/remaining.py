"""Target keys for which no source was found: which keep their initial value, and why the others stay open."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property

from msgspec import Struct

from ckptfix.inference.company import is_recurrent, layer_of, owner_of
from ckptfix.inference.infer import Inference
from ckptfix.inference.leaders import find_leaders_by_key
from ckptfix.inference.lexicon import concept
from ckptfix.inference.link import Link, Open
from ckptfix.inference.names import parent_of, read_name, tail
from ckptfix.inference.reading import NUMBER, blocks_of, read_keys, template
from ckptfix.inference.wording import name_alike
from ckptfix.tensors import Manifest, Shape, TensorSpec

_Series = tuple[str, Shape, int | None, tuple[str, ...]]
"""A template and a shape, the place of the number that counts, or None where all do, and the other numbers."""
_LEAST_SHARE = 0.5
"""Of the target's elements, what must have a source for the rest to be filled."""


class Remaining(Struct, frozen=True, dict=True):
    """What is known when nothing more is matched.

    `links` are those of `found` that nothing speaks against, `made` target keys that have a source, or may have one.
    """

    found: Inference
    links: Sequence[Link]
    want: Manifest
    made: frozenset[str]

    def find_open(self, key: str) -> Open | None:
        """Say why a target key that is left must not be filled; None where it keeps its initial value."""
        spec = self.want[key]
        if not spec.shape or spec.dtype.kind != "float" or self._is_of_a_new_layer(key):
            return None
        reasons = _OF_ANY if self.want.kinds.get(key) == "buffer" else (*_OF_ANY, *_OF_PARAMETERS)
        return next((found for reason in reasons if (found := reason(self, key, spec))), None)

    def _is_of_a_new_layer(self, key: str) -> bool:
        """Tell whether a vector goes with a weight that keeps its initial value: it does as well."""
        if len(self.want[key].shape) != 1:
            return False
        weights = {self.leaders.get(key), *self.weights.get(parent_of(key), ())} - {None}
        return bool(weights) and all(
            weight in self.found.left_targets and self.find_open(weight) is None for weight in weights if weight
        )

    @cached_property
    def weights(self) -> dict[str, list[str]]:
        """The target's matrices and filters, by their module."""
        weights: dict[str, list[str]] = {}
        for key, spec in self.want.items():
            if len(spec.shape) > 1:
                weights.setdefault(parent_of(key), []).append(key)
        return weights

    @cached_property
    def leaders(self) -> dict[str, str]:
        """The weight that each vector of the target goes with."""
        return find_leaders_by_key(self.want, read_keys(self.want))

    @cached_property
    def share(self) -> float:
        """How much of the target has a source, 0 to 1."""
        return sum(self.want[key].numel for key in self.made) / max(self.want.numel, 1)

    @cached_property
    def by_shape(self) -> dict[Shape, list[str]]:
        """The source keys that are left, by their extents in ascending order."""
        shapes: dict[Shape, list[str]] = {}
        for key, spec in self.found.left_sources.items():
            shapes.setdefault(tuple(sorted(spec.shape)), []).append(key)
        return shapes

    @cached_property
    def by_name(self) -> dict[tuple[str, ...], str]:
        """A source key that is left, by the last segments of its name."""
        return {tuple(tail(key, 3)): key for key in self.found.left_sources}

    def namesakes(self, key: str) -> tuple[str, ...]:
        """Give the source key that is left and has the name of a target key, if there is one."""
        other = key if key in self.found.left_sources else self.by_name.get(tuple(tail(key, 3)))
        return (other,) if other else ()

    def misfit(self, key: str) -> str | None:
        """Say which source key that is left has the name of a target key, and which shapes they have."""
        namesakes = self.namesakes(key)
        if not namesakes:
            return None
        [other] = namesakes
        have, want = list(self.found.left_sources[other].shape), list(self.want[key].shape)
        if have == want:
            return None
        return f"'{self.names[other]}' has the shape {have}, the target's is {want}"

    @cached_property
    def names(self) -> dict[str, str]:
        """What to call the keys of both sides."""
        return name_alike((*self.found.left_sources, *self.want))

    @cached_property
    def series(self) -> dict[_Series, str]:
        """The last target key that has a source, of those that have one shape and differ by numbers, or by one."""
        series: dict[_Series, str] = {}
        for key, spec in self.want.items():
            if key in self.made:
                series |= dict.fromkeys(_series(key, spec), key)
        return series

    @cached_property
    def main_misfit(self) -> str | None:
        """The first of what `misfit` says."""
        return next((misfit for key in self.found.left_targets if (misfit := self.misfit(key))), None)

    @cached_property
    def counts(self) -> Counter[str]:
        """How many target keys differ by numbers only."""
        return Counter(map(template, self.want))

    @cached_property
    def halves(self) -> dict[str, str]:
        """A target key that has a source, by what it is a part of."""
        return {_half(key): key for key in self.want if key in self.made}

    @cached_property
    def remnant(self) -> str | None:
        """A source matrix that is left of blocks of which other tensors are used."""
        used = {start for link in self.links for key in link.source_keys for start in blocks_of(key)}
        return next(
            (
                key
                for key, spec in self.found.left_sources.items()
                if len(spec.shape) > 1 and spec.dtype.kind == "float" and not used.isdisjoint(blocks_of(key))
            ),
            None,
        )

    def left_like(self, key: str) -> tuple[str, ...]:
        """List what is left of a module of the source, and of those that differ from it by numbers only."""
        module = template(owner_of(key))
        return tuple(other for other in self.found.left_sources if template(owner_of(other)) == module)

    @cached_property
    def outputs(self) -> frozenset[str]:
        """The parameters of the last layers, which tell the classes apart: they are new where the classes are."""
        return frozenset([key for key in self.want if self.want.kinds.get(key) != "buffer"][-4:])


def is_output(key: str) -> bool:
    """Tell what is called an output layer."""
    return bool({"classifier", "decoder", "out"} & {concept(word) for word in read_name(key).words})


def _of_its_shape(known: Remaining, key: str, spec: TensorSpec) -> Open | None:
    others = known.by_shape.get(tuple(sorted(spec.shape)))
    if others and key in others and known.found.left_sources[key].shape == spec.shape:
        return Open(f"'{known.names[key]}' has its name and shape, and what is around it differs", tuple(others))
    return Open(f"'{others[-1]}' has its shape, and nothing else in common", tuple(others)) if others else None


def _further(known: Remaining, key: str, spec: TensorSpec) -> Open | None:
    """Name the block to copy, of which one number differs if there is such a block."""
    alike = next((known.series[series] for series in _series(key, spec) if series in known.series), None)
    if alike is None:
        return None
    pairs = zip(blocks_of(alike), NUMBER.findall(alike), NUMBER.findall(key), strict=True)
    [*_, block] = (block for block, one, other in pairs if one != other)
    return Open(f"of a further block, which the checkpoint lacks: fill it, or copy it from '{block}'")


def _series(key: str, spec: TensorSpec) -> Iterator[_Series]:
    """Give the series that a key may go on: by each of its numbers, the outermost first, then by all."""
    numbers = NUMBER.findall(key)
    for place in range(len(numbers)):
        yield template(key), spec.shape, place, (*numbers[:place], *numbers[place + 1 :])
    yield template(key), spec.shape, None, ()


def _further_layer(known: Remaining, key: str, spec: TensorSpec) -> Open | None:
    """Tell a layer of a recurrent network, or a direction of it, that the checkpoint lacks: none can be copied."""
    if not is_recurrent(key):
        return None
    module = parent_of(key)
    made = {layer_of(other) for other in known.made if is_recurrent(other) and parent_of(other) == module}
    if not made or layer_of(key) in made.union(map(layer_of, known.found.left_sources)):
        return None
    return Open(f"of a layer or direction of '{module}' that the checkpoint lacks: fill it")


def _adapters(known: Remaining, key: str, spec: TensorSpec) -> Open | None:
    """Ask for the base model of a file that holds nothing but adapters."""
    sources = known.found.left_sources
    if known.made or not sources or not all(".lora_" in other for other in sources):
        return None
    what = "the file holds adapters only, which need the weights that they adapt"
    return Open(f"{what}: merge them into the base model (op `call`, fn merge_lora), and convert that", tuple(sources))


def _other_half(known: Remaining, key: str, spec: TensorSpec) -> Open | None:
    half = known.halves.get(_half(key))
    why = f"it works together with '{known.names[half]}', which has a source: unfold both from it" if half else ""
    return Open(why) if why else None


def _half(key: str) -> str:
    """Name what a parameter is a part of, as `weight_g` and `weight_v` are; itself where it stands alone.

    The parameters of recurrent layers, `weight_ih_l0`, stand alone.
    """
    return key if is_recurrent(key) else re.sub(r"(weight_|original)\w+$", r"\1", key)


def _beside(known: Remaining, key: str, spec: TensorSpec) -> Open | None:
    other = known.found.beside.get(key)
    if other is None:
        return None
    why = f"of its block '{known.names.get(other, other)}' is left over, whose shape does not fit"
    return Open(why, known.left_like(other))


def _remnant(known: Remaining, key: str, spec: TensorSpec) -> Open | None:
    if known.remnant is None or known.counts[template(key)] < 2:
        return None
    why = f"every block has it, and of the blocks of the source '{known.remnant}' is left over"
    return Open(why, known.left_like(known.remnant))


def _mostly_new(known: Remaining, key: str, spec: TensorSpec) -> Open | None:
    """Ask for the target, rather than for each of its tensors, where one of another width was given."""
    if known.share >= _LEAST_SHARE:
        return None
    misfit = f" ({known.main_misfit})" if known.main_misfit else ""
    why = f"only {known.share:.0%} of the target has a source{misfit}: is it the right one?"
    return Open(why, known.namesakes(key))


def _namesake(known: Remaining, key: str, spec: TensorSpec) -> Open | None:
    misfit = known.misfit(key)
    if misfit is None or key in known.outputs or is_output(key):
        return None
    why = f"{misfit}; no resize is known: write the rule by hand, or `fill` it"
    return Open(why, known.namesakes(key))


Reason = Callable[[Remaining, str, TensorSpec], Open | None]
"""Says why a target key stays open, None where this speaks for nothing."""

_OF_ANY: tuple[Reason, ...] = (_adapters, _of_its_shape, _further_layer, _further)
_OF_PARAMETERS: tuple[Reason, ...] = (_other_half, _beside, _remnant, _mostly_new, _namesake)
