"""Target keys for which no source was found: which keep their initial value, and why the others stay open."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from ckptfix.inference.infer import Inference
from ckptfix.inference.lexicon import concept
from ckptfix.inference.link import Link
from ckptfix.inference.names import read_name, tail
from ckptfix.inference.reading import NUMBER, blocks_of, template
from ckptfix.inference.wording import name_alike
from ckptfix.tensors import Manifest, Shape, TensorSpec

_LEAST_SHARE = 0.5
"""Of the target's elements, what must have a source for the rest to be filled."""


@dataclass(frozen=True)
class Remaining:
    """What is known when nothing more is matched.

    `links` are those of `found` that nothing speaks against, `made` target keys that have a source, or may have one.
    """

    found: Inference
    links: Sequence[Link]
    want: Manifest
    made: frozenset[str]

    def why_open(self, key: str) -> str | None:
        """Say why a target key that is left must not be filled; None where it keeps its initial value."""
        spec = self.want[key]
        if not spec.shape or spec.dtype.kind != "float":
            return None
        reasons = _OF_ANY if self.want.kinds.get(key) == "buffer" else (*_OF_ANY, *_OF_PARAMETERS)
        return next((why for reason in reasons if (why := reason(self, key, spec))), None)

    @cached_property
    def share(self) -> float:
        """How much of the target has a source, 0 to 1."""
        return sum(self.want[key].numel for key in self.made) / max(self.want.numel, 1)

    @cached_property
    def by_shape(self) -> dict[Shape, str]:
        """A source key that is left, by its extents in ascending order."""
        return {tuple(sorted(spec.shape)): key for key, spec in self.found.left_sources.items() if spec.shape}

    @cached_property
    def by_name(self) -> dict[tuple[str, ...], str]:
        """A source key that is left, by the last segments of its name."""
        return {tuple(tail(key, 3)): key for key in self.found.left_sources}

    def misfit(self, key: str) -> str | None:
        """Say which source key that is left has the name of a target key, and which shapes they have."""
        left = self.found.left_sources
        other = key if key in left else self.by_name.get(tuple(tail(key, 3)))
        if other is None:
            return None
        have, want = list(left[other].shape), list(self.want[key].shape)
        return f"'{self.names[other]}' has the shape {have}, the target's is {want}"

    @cached_property
    def names(self) -> dict[str, str]:
        """What to call the keys of both sides."""
        return name_alike((*self.found.left_sources, *self.want))

    @cached_property
    def series(self) -> dict[tuple[str, Shape], list[str]]:
        """The target keys that have a source, those of one shape together that differ by numbers only."""
        series: dict[tuple[str, Shape], list[str]] = {}
        for key, spec in self.want.items():
            if key in self.made:
                series.setdefault((template(key), spec.shape), []).append(key)
        return series

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

    @cached_property
    def outputs(self) -> frozenset[str]:
        """The parameters of the last layers, which tell the classes apart: they are new where the classes are."""
        return frozenset([key for key in self.want if self.want.kinds.get(key) != "buffer"][-4:])


def is_output(key: str) -> bool:
    """Tell what is called an output layer."""
    return bool({"classifier", "decoder", "out"} & {concept(word) for word in read_name(key).words})


def _of_its_shape(known: Remaining, key: str, spec: TensorSpec) -> str | None:
    other = known.by_shape.get(tuple(sorted(spec.shape)))
    return other and f"'{other}' has its shape, and nothing else in common"


def _further(known: Remaining, key: str, spec: TensorSpec) -> str | None:
    """Name the block to copy: the last of those that have most numbers in common with the key."""
    alike = known.series.get((template(key), spec.shape))
    if not alike:
        return None
    numbers = NUMBER.findall(key)
    shared = [[one == other for one, other in zip(numbers, NUMBER.findall(like), strict=True)] for like in alike]
    place = max(range(len(alike)), key=lambda at: (sum(shared[at]), at))
    [*_, last] = (block for block, same in zip(blocks_of(alike[place]), shared[place], strict=True) if not same)
    return f"of a further block, which the checkpoint lacks: fill it, or copy it from '{last}'"


def _other_half(known: Remaining, key: str, spec: TensorSpec) -> str | None:
    half = known.halves.get(_half(key))
    return half and f"it works together with '{known.names[half]}', which has a source: unfold both from it"


def _half(key: str) -> str:
    """Name what a parameter is a part of, as `weight_g` and `weight_v` are; itself where it stands alone."""
    return re.sub(r"(weight_|original)\w+$", r"\1", key)


def _beside(known: Remaining, key: str, spec: TensorSpec) -> str | None:
    other = known.found.beside.get(key)
    if other is None:
        return None
    return f"of its block '{known.names.get(other, other)}' is left over, whose shape does not fit"


def _remnant(known: Remaining, key: str, spec: TensorSpec) -> str | None:
    if known.remnant is None or known.counts[template(key)] < 2:
        return None
    return f"every block has it, and of the blocks of the source '{known.remnant}' is left over"


def _mostly_new(known: Remaining, key: str, spec: TensorSpec) -> str | None:
    """Ask for the target, rather than for each of its tensors, where one of another width was given."""
    if known.share >= _LEAST_SHARE:
        return None
    misfit = next((f" ({misfit})" for other in known.found.left_targets if (misfit := known.misfit(other))), "")
    return f"only {known.share:.0%} of the target has a source{misfit}: is it the right one?"


def _namesake(known: Remaining, key: str, spec: TensorSpec) -> str | None:
    misfit = known.misfit(key)
    if misfit is None or key in known.outputs or is_output(key):
        return None
    return f"{misfit}; no resize is known: write the rule by hand instead of the `drop`, or `fill` it"


Reason = Callable[[Remaining, str, TensorSpec], str | None]
"""Says why a target key stays open, None where this speaks for nothing."""

_OF_ANY: tuple[Reason, ...] = (_of_its_shape, _further)
_OF_PARAMETERS: tuple[Reason, ...] = (_other_half, _beside, _remnant, _mostly_new, _namesake)
