"""Choose or reorder rows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import product
from math import prod
from typing import Annotated, Literal

from pydantic import Field, model_validator

from ckptfix.edits import Edit, Example, Inverse, Scope, lossy
from ckptfix.errors import RuleError, UnknownVariable
from ckptfix.expr import Expr
from ckptfix.expr import Take as TakeExpr
from ckptfix.layout import Axis, Name, Number, Product, Sizes, Sum, expand, extent, names_of, parse_tensor, solve
from ckptfix.rules.base import Extent, Patterns, Rule, check_axes, edit_each

_SLICE = re.compile(r"(\d*):(\d*)(?::([1-9]\d*))?")


class Take(Rule):
    """Choose or reorder rows along one named axis: a subset of classes, another order of a vocabulary.

    `index` is a list of rows from 0, a slice `start:stop:step`, or the name of a variable that holds a list. The axis
    may be a factor of another: `(h d) i` with `axis: h` chooses heads.
    """

    op: Literal["take"]
    keys: Patterns = Field(description="Patterns of the keys to take rows of.")
    layout: str = Field(description="The axes of the tensor, e.g. `class ...`.")
    axis: str = Field(description="The axis whose rows are taken.")
    index: list[Annotated[int, Field(ge=0)]] | str = Field(
        description="Rows from 0, a slice such as '0:5', or a variable that holds a list."
    )
    sizes: dict[str, Extent | str] = Field(
        default_factory=dict, description="Extents of axes that the shape alone does not tell."
    )

    examples = (
        Example(
            rule='{op: take, keys: "fc.*", layout: "class ...", axis: class, index: [7, 2]}',
            have={"fc.weight": [9, 3], "fc.bias": [9]},
            want={"fc.weight": [2, 3], "fc.bias": [2]},
            gives={"fc.weight": "take(fc.weight, dim 0: 7, 2)", "fc.bias": "take(fc.bias, dim 0: 7, 2)"},
        ),
        Example(
            rule='{op: take, keys: w, layout: "(h d) i", axis: h, index: "1:3", sizes: {d: 2}}',
            have={"w": [8, 3]},
            want={"w": [4, 3]},
            gives={"w": "take(w, dim 0: 2, 3, 4, 5)"},
        ),
        Example(
            rule='{op: take, keys: w, layout: "v c", axis: v, index: [3]}',
            have={"w": [3, 2]},
            want={},
            fails="there is no row 3 of 'v', which has 3",
        ),
        Example(
            rule='{op: take, keys: w, layout: "v c", axis: v, index: classes}',
            have={"w": [3, 2]},
            want={},
            fails="'classes' is no variable",
        ),
    )

    @model_validator(mode="after")
    def _check_axis(self) -> Take:
        check_axes(self.layout, (self.axis, *self.sizes))
        return self

    def edit(self, scope: Scope) -> Edit:
        """Wrap each selected row."""
        return edit_each(self.keys, scope, lambda key: self._taken(scope.table[key], scope))

    def inverse(self, scope: Scope, edit: Edit) -> Inverse:
        """Put the rows back in their order, where all are there."""
        taken = {made.key: made.expr for made in edit.made if made.expr != scope.table[made.key]}
        rows = {key: tuple(expr.rows) for key, expr in taken.items() if isinstance(expr, TakeExpr)}
        sizes = {key: expr.source.spec.shape[expr.dim] for key, expr in taken.items() if isinstance(expr, TakeExpr)}
        if not rows:
            return Inverse("exact")
        axes = parse_tensor(self.layout)
        if any(sorted(row) != list(range(sizes[key])) for key, row in rows.items()):
            return lossy("rows are left out")
        if not any(isinstance(axis, Name) and axis.name == self.axis for axis in axes) or len(set(rows.values())) > 1:
            return lossy("the order back cannot be written as one rule")
        order = next(iter(rows.values()))
        back = sorted(range(len(order)), key=order.__getitem__)
        rule = {"op": "take", "keys": list(rows), "layout": self.layout, "axis": self.axis, "index": back}
        return Inverse("exact", (rule,))

    def _taken(self, source: Expr, scope: Scope) -> Expr:
        axes = expand(parse_tensor(self.layout), len(source.spec.shape))
        sizes = solve(axes, source.spec.shape, scope.look_up(self.sizes))
        dim = next(dim for dim, axis in enumerate(axes) if self.axis in names_of(axis))
        chosen = self._rows(sizes[self.axis], scope)
        rows = _positions(axes[dim], sizes, self.axis, chosen)
        return source if list(rows) == list(range(source.spec.shape[dim])) else TakeExpr(source, dim, tuple(rows))

    def _rows(self, size: int, scope: Scope) -> Sequence[int]:
        index: object = self.index
        if isinstance(index, str) and (found := _SLICE.fullmatch(index)):
            return range(size)[slice(*(int(text) if text else None for text in found.groups()))]
        if isinstance(index, str):
            index = scope.variables.get(index)
            if index is None:
                raise UnknownVariable(f"'{self.index}' is no variable", hint=f"give --var {self.index}=[...]")
        rows = [row for row in index if isinstance(row, int)] if isinstance(index, Sequence) else []
        if not isinstance(index, Sequence) or len(rows) < len(index):
            raise RuleError(f"the variable '{self.index}' is no list of rows", hint="it holds integers from 0")
        if beyond := [row for row in rows if not 0 <= row < size]:
            raise RuleError(f"there is no row {beyond[0]} of '{self.axis}', which has {size}")
        return rows


def _positions(axis: Axis, sizes: Sizes, name: str, chosen: Sequence[int]) -> Sequence[int]:
    """Give the places along a whole axis whose coordinate along `name` is chosen, in the order of the choice."""
    match axis:
        case Name(other):
            return chosen if other == name else range(sizes[other])
        case Number(number):
            return range(number)
        case Sum(parts):
            places: list[int] = []
            start = 0
            for part in parts:
                places += [start + place for place in _positions(part, sizes, name, chosen)]
                start += extent(part, sizes) or 0
            return places
        case Product(factors):
            steps = [prod(extent(inner, sizes) or 0 for inner in factors[n + 1 :]) for n in range(len(factors))]
            rows = [_positions(factor, sizes, name, chosen) for factor in factors]
            return [sum(step * place for step, place in zip(steps, choice, strict=True)) for choice in product(*rows)]
    raise AssertionError(axis)
