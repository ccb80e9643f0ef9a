"""Put the numbers of tensors into other places."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from itertools import product
from typing import Literal

from pydantic import Field, model_validator

from ckptfix.edits import Edit, Example, Inverse, Made, Scope, lossy
from ckptfix.errors import LayoutError, PatternError
from ckptfix.expr import Rearrange as RearrangeExpr
from ckptfix.expr import Term
from ckptfix.keys import Group, KeyPattern, KeyTemplate, gather, invert_keys
from ckptfix.layout import (
    Axes,
    Axis,
    Layout,
    Name,
    Product,
    Rest,
    Shaped,
    Sizes,
    Sum,
    expand,
    extent,
    names_of,
    solve_layout,
    text_of,
)
from ckptfix.rules.base import (
    Extent,
    Patterns,
    Rule,
    Templates,
    check_sides,
    edit_groups,
    groups_in_place,
    keys_or_patterns,
)
from ckptfix.tensors import TensorSpec

Index = tuple[tuple[str, int], ...]


class Rearrange(Rule):
    """Split, fuse, stack, unstack, transpose, permute, reshape, squeeze or repeat: one op.

    `layout` names the axes before and after the arrow: `(q+k+v) ... -> q ..., k ..., v ...` splits, its reverse
    fuses, `o i -> i o` transposes, `o (c h w) -> o c h w` reshapes, `d i -> (g d) i` repeats. Commas separate
    tensors, in the order of `from` and `to`. A placeholder that only one side has is an axis of that side's layout:
    there tensors are stacked, in numeric order, or taken apart, counting from 0. `from` is consumed.

    Sizes follow from `sizes`, the source, the target, and, where the target tells nothing, from parts being equal. Head
    counts are never guessed.
    """

    op: Literal["rearrange"]
    keys: Patterns | None = Field(default=None, description="Patterns of the keys to change in place.")
    sources: Patterns | None = Field(default=None, alias="from", description="One pattern for each tensor on the left.")
    to: Templates | None = Field(default=None, description="One new key for each tensor on the right.")
    layout: str = Field(description="Axes before -> axes after.")
    sizes: dict[str, Extent | str] = Field(default_factory=dict, description="Extents that shapes alone do not tell.")

    examples = (
        Example(
            rule='{op: rearrange, from: "{b}.qkv.{p}", to: ["{b}.q.{p}", "{b}.k.{p}", "{b}.v.{p}"], '
            'layout: "(q+k+v) ... -> q ..., k ..., v ..."}',
            have={"a.qkv.weight": [12, 4], "a.qkv.bias": [12]},
            want={"a.q.weight": [6, 4], "a.k.weight": [3, 4], "a.q.bias": [6], "a.v.bias": [3]},
            gives={
                "a.q.weight": "rearrange(a.qkv.weight: (q + k + v) ... -> q ...)",
                "a.k.weight": "rearrange(a.qkv.weight: (q + k + v) ... -> k ...)",
                "a.v.weight": "rearrange(a.qkv.weight: (q + k + v) ... -> v ...)",
                "a.q.bias": "rearrange(a.qkv.bias: (q + k + v) ... -> q ...)",
                "a.k.bias": "rearrange(a.qkv.bias: (q + k + v) ... -> k ...)",
                "a.v.bias": "rearrange(a.qkv.bias: (q + k + v) ... -> v ...)",
            },
        ),
        Example(
            rule='{op: rearrange, keys: "**.weight", layout: "o i -> i o"}',
            have={"fc.weight": [3, 2], "fc.bias": [3]},
            want={"fc.weight": [2, 3], "fc.bias": [3]},
            gives={"fc.bias": "fc.bias", "fc.weight": "rearrange(fc.weight: o i -> i o)"},
        ),
        Example(
            rule='{op: rearrange, from: ["e.{e}.w1", "e.{e}.w3"], to: gate_up, layout: "e g c, e u c -> e (g+u) c"}',
            have={"e.0.w1": [3, 2], "e.0.w3": [3, 2], "e.1.w1": [3, 2], "e.1.w3": [3, 2]},
            want={"gate_up": [2, 6, 2]},
            gives={"gate_up": "rearrange(e.0.w1, e.1.w1, e.0.w3, e.1.w3: e g c, e u c -> e (g + u) c)"},
        ),
        Example(
            rule='{op: rearrange, from: w, to: "experts.{e}", layout: "e o i -> e o i"}',
            have={"w": [2, 3, 4]},
            want={"experts.0": [3, 4], "experts.1": [3, 4]},
            gives={
                "experts.0": "rearrange(w: e o i -> e o i at e=0)",
                "experts.1": "rearrange(w: e o i -> e o i at e=1)",
            },
        ),
        Example(
            rule='{op: rearrange, keys: w, layout: "(h two d) i -> (h d two) i", sizes: {two: 2}}',
            have={"w": [16, 4]},
            want={"w": [16, 4]},
            fails="the size of 'h' does not follow from (h two d) = 16",
        ),
        Example(
            rule='{op: rearrange, from: "e.{e}", to: w, layout: "e o -> e o"}',
            have={"e.0": [3], "e.2": [3]},
            want={"w": [2, 3]},
            fails="incomplete group: along 'e' there are 0, 2",
        ),
        Example(
            rule='{op: rearrange, keys: w, layout: "(h d) i -> h d i", sizes: {h: 3}}',
            have={"w": [8, 2]},
            want={"w": [3, 2, 2]},
            fails="(h d): 8 is not divisible by 3",
        ),
    )

    @model_validator(mode="after")
    def _check_sides(self) -> Rearrange:
        check_sides(self.keys, self.sources, self.to)
        try:
            layout = self.parsed
        except LayoutError as error:
            raise ValueError(f"layout: {error}") from error
        counts = (1, 1) if self.keys else (len(self.sources or ()), len(self.to or ()))
        if counts != (len(layout.left), len(layout.right)):
            raise ValueError(
                f"the layout has {len(layout.left)} tensors before the arrow and {len(layout.right)} after it, "
                f"from and to have {counts[0]} and {counts[1]}"
            )
        known = {name for axes in (*layout.left, *layout.right) for axis in axes for name in names_of(axis)}
        for name in self.sizes:
            if name not in known:
                raise ValueError(f"sizes: '{self.layout}' has no axis '{name}'; it has {', '.join(sorted(known))}")
        return self

    @cached_property
    def parsed(self) -> Layout:
        """The layout. Raises LayoutError."""
        return Layout.parse(self.layout)

    def edit(self, scope: Scope) -> Edit:
        """Replace the rows of each group by those that the layout makes of them."""
        if self.keys:
            return edit_groups(self.keys, scope, self._groups, self._arrange, "any pattern")
        return edit_groups(self.sources or (), scope, self._groups, self._arrange, "all patterns")

    def inverse(self, scope: Scope, edit: Edit) -> Inverse:
        """Swap the sides."""
        back = self.parsed.inverse()
        if back is None:
            return lossy(f"{', '.join(sorted(self.parsed.repeated))} repeats: of equal parts one would be chosen")
        rule: dict[str, object] = {"op": "rearrange"}
        if self.sources and self.to:
            keys = invert_keys(self.sources, self.to, self._first_places(scope))
            if keys is None:
                return lossy("the keys of the way back cannot be written with placeholders")
            rule |= {"from": keys[0], "to": keys[1]}
        else:
            rule |= {"keys": keys_or_patterns(self.keys or (), edit.consumed, scope.table)}
        rule |= {"layout": str(back)} | ({"sizes": dict(self.sizes)} if self.sizes else {})
        return Inverse("exact", (rule,) if edit.made else ())

    def _first_places(self, scope: Scope) -> dict[str, int]:
        """Give the least number along each placeholder that is stacked along."""
        made = {name for template in self.to or () for name in template.names}
        found = [bound for pattern in self.sources or () for _, bound in pattern.matches(scope.table)]
        names = {name for pattern in self.sources or () for name in pattern.names if name not in made}
        numbers = {name: [int(bound[name]) for bound in found if bound.get(name, "").isdecimal()] for name in names}
        return {name: min(values, default=0) for name, values in numbers.items()}

    def _groups(self, scope: Scope) -> list[Group]:
        if self.keys:
            return groups_in_place(self.keys, scope.table)
        patterns, templates = self.sources or (), self.to or ()
        made = frozenset(name for template in templates for name in template.names)
        names = {name for pattern in patterns for name in pattern.names}
        for pattern, axes in zip(patterns, self.parsed.left, strict=True):
            _check_axes(set(pattern.names) - made, axes, pattern)
        for template, axes in zip(templates, self.parsed.right, strict=True):
            _check_axes(template.names - names - scope.variables.keys(), axes, template)
        return gather(patterns, scope.table, made)

    def _arrange(self, group: Group, scope: Scope) -> Iterator[Made]:
        """Make the outputs of one group."""
        extents = group.extents
        rest = _rest_rank(self.parsed.left[0], len(scope.table[group.first].spec.shape), extents)
        left = [_without_rest(axes, rest) for axes in self.parsed.left]
        right = [_without_rest(axes, rest) for axes in self.parsed.right]
        terms: list[Term] = []
        have: list[Shaped] = []
        for axes, members in zip(left, group.members, strict=True):
            # The members of one pattern lie along the same axes, and most have one shape.
            kept = _without(axes, dict(members[0].place))
            terms += [Term(scope.table[member.key], kept, member.place) for member in members]
            have += [Shaped(kept, shape) for shape in {scope.table[member.key].spec.shape: None for member in members}]
        for shaped in have:
            if len(shaped.axes) != len(shaped.shape):
                raise LayoutError(
                    f"'{text_of(shaped.axes)}' has {len(shaped.axes)} axes, the tensor has {len(shaped.shape)}"
                )
        known = {**scope.look_up(self.sizes), **extents}
        sizes = solve_layout(have, list(self._wanted(group, right, known, scope)), known)
        for name in sorted(self.parsed.repeated - sizes.keys()):
            raise LayoutError(f"the size of '{name}' follows from no tensor", hint=f"give it: sizes: {{{name}: ...}}")
        dtypes = {term.source.spec.dtype for term in terms}
        if len(dtypes) > 1:
            raise LayoutError(f"the tensors are of {' and '.join(sorted(dtypes))}", hint="cast them first")
        parents = tuple(member.key for members in group.members for member in members)
        text = ", ".join(map(text_of, self.parsed.left))
        parts, solved = tuple(terms), tuple(sizes.items())
        for number, axes in enumerate(right):
            label = f"{text} -> {text_of(self.parsed.right[number])}"
            kept, spec = axes, None
            for key, index in self._outputs(number, group, sizes, scope):
                if spec is None:  # the outputs of one template differ in their place alone
                    kept = _without(axes, dict(index))
                    shape = tuple(extent(axis, sizes) or 0 for axis in kept)
                    spec = TensorSpec(shape, terms[0].source.spec.dtype)
                yield Made(key, RearrangeExpr(parts, spec, kept, index, solved, label), parents)

    def _outputs(
        self, number: int, group: Group, sizes: Mapping[str, int], scope: Scope
    ) -> Iterator[tuple[str, Index]]:
        """Give the keys of one tensor of the right side, each with its place along the axes it is taken apart by."""
        if self.to is None:
            yield group.first, ()
            return
        template = self.to[number]
        free = [name for name in sorted(template.names - group.bound.keys()) if name not in scope.variables]
        for places in product(*(range(sizes[name]) for name in free)):
            index = dict(zip(free, places, strict=True))
            texts = {**group.bound, **{name: str(place) for name, place in index.items()}}
            yield scope.fill(template, texts), tuple(index.items())

    def _wanted(self, group: Group, right: list[Axes], known: Sizes, scope: Scope) -> Iterator[Shaped]:
        """Give what the target says of the results: those whose keys it has. Of a row of keys, the first tells all."""
        for number, axes in enumerate(right):
            template = self.to[number] if self.to else None
            free = (
                []
                if template is None
                else [name for name in template.names - group.bound.keys() if name not in scope.variables]
            )
            first = dict.fromkeys(free, 0)
            texts = {**group.bound, **dict.fromkeys(free, "0")}
            key = group.first if template is None else scope.fill(template, texts)
            if key in scope.want:
                kept = _without(axes, first)
                shape = scope.want[key].shape
                if len(kept) == len(shape):
                    yield Shaped(kept, shape, f"'{key}' of the target")


def _check_axes(names: set[str] | frozenset[str], axes: Axes, where: KeyPattern | KeyTemplate) -> None:
    """Hold placeholders that one side alone has to being axes of that side's layout."""
    known = [name for axis in axes for name in names_of(axis)]
    for name in sorted(names):
        if name not in known:
            raise PatternError(
                f"{{{name}}} of '{where}' stands on one side only, and is no axis of '{text_of(axes)}'",
                hint="name it there to stack or unstack along it, or use it on both sides",
            )


def _rest_rank(axes: Axes, rank: int, stacked: Mapping[str, int]) -> int:
    """Count the axes that `...` stands for."""
    plain = _without(axes, stacked)
    return len(expand(plain, rank)) - len([axis for axis in plain if not isinstance(axis, Rest)])


def _without_rest(axes: Axes, count: int) -> Axes:
    named = len([axis for axis in axes if not isinstance(axis, Rest)])
    return expand(axes, named + count) if any(isinstance(axis, Rest) for axis in axes) else axes


def _without(axes: Axes, names: Mapping[str, int]) -> Axes:
    """Leave out axes along which a tensor of its own is one place."""
    kept = [_without_name(axis, names) for axis in axes]
    return tuple(axis for axis in kept if axis is not None)


def _without_name(axis: Axis, names: Mapping[str, int]) -> Axis | None:
    match axis:
        case Name(name):
            return None if name in names else axis
        case Product(factors):
            kept = _without(factors, names)
            return None if not kept else kept[0] if len(kept) == 1 else Product(kept)
        case Sum():
            if any(name in names for name in names_of(axis)):
                raise LayoutError(f"{axis}: a part of a sum cannot be stacked along")
    return axis
