"""Give tensors other extents along named axes."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ckptfix.edits import Edit, Example, Inverse, Scope, lossy
from ckptfix.errors import LayoutError, RuleError
from ckptfix.expr import Block, Channels, Crop, Expr, Initial, Pad
from ckptfix.expr import Resize as ResizeExpr
from ckptfix.keys import nearest_keys
from ckptfix.layout import Axes, Name, Sizes, expand, parse_tensor, solve, text_of
from ckptfix.resizing import block_of, change_of, check_extents, shape_of
from ckptfix.rules.base import Extent, Patterns, Rule, check_axes, edit_each, keys_or_patterns
from ckptfix.tensors import Shape, TensorSpec

_ONE = dict.fromkeys(("linear", "tile", "sum", "mean"), (1, 1))
_TWO = dict.fromkeys(("bilinear", "bicubic", "pinv"), (2, 2))
_AXES = _ONE | _TWO | {"nearest": (1, 3), "geometric": (1, 2)}
"""How many axes a mode works along, at least and at most; the others along any number."""
_MODES_WITH = {
    "antialias": ("bilinear", "bicubic", "pinv"),
    "align_corners": ("linear", "bilinear", "bicubic"),
    "rescale": ("tile", "sum", "mean"),
}
"""The modes that have an option."""
_LOSSES = {
    "crop": "leaves numbers out",
    "tile": "repeats: of equal parts one would be chosen",
    "sum": "adds numbers up",
    "mean": "adds numbers up",
}
"""Why what a mode does cannot be undone; the others interpolate."""


class Resize(Rule):
    """Interpolate, crop, pad, tile or sum along named axes; all other axes keep their extent.

    `layout` names the axes of the tensor, e.g. `1 (p + (h w)) c` for class token and grid of a position table,
    and `axes` says which change. Two listed axes that a product leaves open are taken as equal (196 = 14 x 14).
    Where no extent changes, the bytes are untouched. Interpolation runs in float32 and gives the dtype back.
    """

    op: Literal["resize"]
    keys: Patterns = Field(description="Patterns of the keys to resize.")
    layout: str = Field(description="The axes of the tensor.")
    axes: list[str] | dict[str, Extent | str] = Field(
        description="The axes that change: a list, with new extents from the target, or a map to new extents.",
        min_length=1,
        json_schema_extra={"minItems": 1, "minProperties": 1},  # of the union pydantic writes minLength, a text's
    )
    mode: Literal[
        "bicubic", "bilinear", "linear", "nearest", "pinv", "geometric", "crop", "pad", "tile", "sum", "mean"
    ] = Field(
        description="pinv is for patch kernels: they answer to resized patches as before. "
        "geometric is for tables of relative positions: near ones change least. "
        "crop keeps the leading part, pad adds to the end. For input channels, tile repeats them in turn, "
        "sum and mean make each new one the sum or mean of the old ones."
    )
    sizes: dict[str, Extent | str] = Field(
        default_factory=dict, description="Extents of axes in the SOURCE that its shape alone does not tell."
    )
    antialias: bool = Field(default=False, description="Low-pass before shrinking (bilinear, bicubic, pinv).")
    align_corners: bool = Field(default=False, description="Corner pixels stay on corners (linear, bilinear, bicubic).")
    fill: float | Literal["mean", "target"] = Field(
        default=0.0, description="What pad adds: a number, the mean of the present rows, or the target's own."
    )
    rescale: bool = Field(
        default=False,
        description="The new channels together weigh what the old ones did: the response stays (tile, sum, mean).",
    )
    seed: int = Field(default=0, ge=0, lt=2**63, description="Seed of `fill: target`.")

    examples = (
        Example(
            rule='{op: resize, keys: pos, layout: "1 (p + (h w)) c", axes: [h, w], mode: bicubic, sizes: {p: 1}}',
            have={"pos": [1, 197, 8]},
            want={"pos": [1, 577, 8]},
            gives={"pos": "bicubic(pos, [1, 197, 8] -> [1, 577, 8])"},
        ),
        Example(
            rule='{op: resize, keys: proj, layout: "o i h w", axes: [h, w], mode: pinv, antialias: true}',
            have={"proj": [8, 3, 16, 16]},
            want={"proj": [8, 3, 14, 14]},
            gives={"proj": "pinv(proj, [8, 3, 16, 16] -> [8, 3, 14, 14])"},
        ),
        Example(
            rule='{op: resize, keys: table, layout: "((h w) + cls) n", axes: [h, w], mode: geometric, sizes: {cls: 3}}',
            have={"table": [732, 12]},
            want={"table": [2212, 12]},
            gives={"table": "geometric(table, [732, 12] -> [2212, 12])"},
        ),
        Example(
            rule='{op: resize, keys: table, layout: "(h w) n", axes: [h, w], mode: geometric}',
            have={"table": [169, 4]},
            want={"table": [196, 4]},
            fails="a window of n has 2n - 1 relative positions",
        ),
        Example(
            rule='{op: resize, keys: wte, layout: "v c", axes: {v: 12}, mode: pad, fill: mean}',
            have={"wte": [10, 4]},
            want={"wte": [12, 4]},
            gives={"wte": "pad(wte, [10, 4] -> [12, 4], mean)"},
        ),
        Example(
            rule='{op: resize, keys: conv, layout: "o i h w", axes: {i: 1}, mode: sum}',
            have={"conv": [8, 3, 7, 7]},
            want={"conv": [8, 1, 7, 7]},
            gives={"conv": "sum(conv, [8, 3, 7, 7] -> [8, 1, 7, 7])"},
        ),
        Example(
            rule='{op: resize, keys: conv, layout: "o i h w", axes: [i], mode: tile, rescale: true}',
            have={"conv": [8, 3, 7, 7]},
            want={"conv": [8, 4, 7, 7]},
            gives={"conv": "tile(conv, [8, 3, 7, 7] -> [8, 4, 7, 7], rescaled)"},
        ),
        Example(
            rule='{op: resize, keys: conv, layout: "o i h w", axes: [i], mode: mean, rescale: true}',
            have={"conv": [8, 3, 7, 7]},
            want={"conv": [8, 12, 7, 7]},
            gives={"conv": "mean(conv, [8, 3, 7, 7] -> [8, 12, 7, 7], rescaled)"},
        ),
        Example(
            rule='{op: resize, keys: conv, layout: "o i h w", axes: [h, w], mode: bicubic, rescale: true}',
            have={"conv": [8, 3, 7, 7]},
            want={"conv": [8, 3, 5, 5]},
            fails="rescale: bicubic has none",
        ),
        Example(
            rule='{op: resize, keys: pos, layout: "n c", axes: [n], mode: crop}',
            have={"pos": [512, 4]},
            want={"pos": [512, 4]},
            gives={"pos": "pos"},
        ),
        Example(
            rule='{op: resize, keys: pos, layout: "(h w) c", axes: [h, w], mode: bicubic}',
            have={"pos": [12, 4]},
            want={"pos": [16, 4]},
            fails="12 is not a square",
        ),
        Example(
            rule='{op: resize, keys: pos, layout: "n c", axes: [m], mode: linear}',
            have={"pos": [4, 4]},
            want={"pos": [8, 4]},
            fails="'n c' has no axis 'm'",
        ),
        Example(
            rule='{op: resize, keys: pos, layout: "n c", axes: [n], mode: crop}',
            have={"pos": [4, 4]},
            want={"pos": [8, 4]},
            fails="crop cannot grow",
        ),
    )

    @model_validator(mode="after")
    def _check_options(self) -> Resize:
        names = check_axes(self.layout, (*self.axes, *self.sizes))
        if len(set(self.axes)) < len(self.axes):
            raise ValueError(f"axes: one stands twice in {', '.join(self.axes)}")
        low, high = _AXES.get(self.mode, (1, len(names)))
        if not low <= len(self.axes) <= high:
            count = f"{low} to {high} axes" if low < high else "one axis" if high == 1 else f"{high} axes"
            raise ValueError(f"{self.mode} works along {count}")
        for option, modes in _MODES_WITH.items():
            if getattr(self, option) and self.mode not in modes:
                raise ValueError(f"{option}: {self.mode} has none")
        if "fill" in self.model_fields_set and self.mode != "pad":
            raise ValueError(f"fill: {self.mode} adds nothing")
        if self.fill == "mean" and len(self.axes) > 1:
            raise ValueError("fill: the mean is taken along one axis")
        return self

    def edit(self, scope: Scope) -> Edit:
        """Wrap each selected row whose extents change."""

        def resized(key: str) -> Expr | None:
            expr = self._resized(key, scope)
            return None if expr is scope.table[key] else expr

        return edit_each(self.keys, scope, resized)

    def inverse(self, scope: Scope, edit: Edit) -> Inverse:
        """Crop what was padded; no other mode keeps every number apart."""
        if not edit.made:
            return Inverse("exact")
        if self.mode != "pad":
            return lossy(f"{self.mode} {_LOSSES.get(self.mode, 'interpolates')}")
        groups: dict[tuple[Shape, Shape], list[str]] = {}
        for key in edit.consumed:
            _, have, want = self._extents(key, scope)
            change = tuple(have[name] for name in self.axes), tuple(want[name] for name in self.axes)
            groups.setdefault(change, []).append(key)
        written = {change: keys_or_patterns(self.keys, keys, scope.table) for change, keys in groups.items()}
        return Inverse("exact", tuple(self._cropping(keys, *change) for change, keys in written.items()))

    def _cropping(self, keys: list[str], old: Shape, new: Shape) -> dict[str, object]:
        """Write the rule that crops keys to their old extents; shapes alone tell an axis that stands by itself."""
        plain = parse_tensor(self.layout)
        folded = {name: size for name, size in zip(self.axes, new, strict=True) if Name(name) not in plain}
        sizes = {name: size for name, size in self.sizes.items() if name not in self.axes} | folded
        axes = dict(zip(self.axes, old, strict=True))
        rule: dict[str, object] = {"op": "resize", "keys": keys, "layout": self.layout, "axes": axes, "mode": "crop"}
        return rule | ({"sizes": sizes} if sizes else {})

    def _extents(self, key: str, scope: Scope) -> tuple[Axes, Sizes, Sizes]:
        """Give the axes of a tensor, their extents, and their new extents."""
        shape = scope.table[key].spec.shape
        axes = expand(parse_tensor(self.layout), len(shape))
        have = solve(axes, shape, scope.look_up(self.sizes), tuple(self.axes))
        return axes, have, have | self._new_sizes(key, axes, have, scope)

    def _resized(self, key: str, scope: Scope) -> Expr:
        source = scope.table[key]
        axes, have, want = self._extents(key, scope)
        if have == want:
            return source
        block = block_of(axes, have, want, tuple(self.axes))
        spec = TensorSpec(shape_of(axes, want), source.spec.dtype)
        change = change_of(self.axes, have, want)
        match self.mode:
            case "crop":
                if any(want[name] > have[name] for name in self.axes):
                    raise RuleError(f"crop cannot grow {change}", hint="use mode: pad")
                return Crop(source, spec, block)
            case "pad":
                if any(want[name] < have[name] for name in self.axes):
                    raise RuleError(f"pad cannot shrink {change}", hint="use mode: crop")
                return self._padded(key, source, spec, block, scope)
            case "tile" | "sum" | "mean" as mode:
                self._check_numbers(spec, block, change)
                return Channels(source, spec, block, mode, self.rescale)
            case mode:
                self._check_numbers(spec, block, change)
                return ResizeExpr(source, spec, block, mode, self.antialias, self.align_corners)

    def _check_numbers(self, spec: TensorSpec, block: Block, change: str) -> None:
        if spec.dtype.kind != "float" and (self.mode != "tile" or self.rescale):
            raise RuleError(f"{self.mode} needs floating numbers, this is {spec.dtype}")
        check_extents(self.mode, block, change)

    def _new_sizes(self, key: str, axes: Axes, have: Sizes, scope: Scope) -> Sizes:
        if isinstance(self.axes, dict):
            return scope.look_up(self.axes)
        if key not in scope.want:
            near = nearest_keys(key, scope.want)
            raise RuleError(
                "the target has no such key, so it gives no new extents",
                hint=f"write axes: {{{self.axes[0]}: ...}}, or rename first; nearest: {', '.join(near) or 'none'}",
            )
        shape = scope.want[key].shape
        if len(shape) != len(axes):
            raise RuleError(f"the target has {list(shape)} there, '{text_of(axes)}' has {len(axes)} axes")
        kept = {name: size for name, size in have.items() if name not in self.axes}
        try:
            return solve(axes, shape, kept, tuple(self.axes))
        except LayoutError as error:
            extents = ", ".join(f"{name}: ..." for name in self.axes)
            hint = f"give the new extents: axes: {{{extents}}}" if error.hint else "axes lists every axis that changes"
            raise LayoutError(f"in the target {list(shape)}: {error.message}", hint=hint) from error

    def _padded(self, key: str, source: Expr, spec: TensorSpec, block: Block, scope: Scope) -> Expr:
        if self.fill == "mean" and spec.dtype.kind != "float":
            raise RuleError(f"the mean needs floating numbers, this is {spec.dtype}")
        if self.fill == "mean" and 0 in block.inner:
            raise RuleError(f"there is no mean of no rows: {list(source.spec.shape)}")
        if self.fill != "target":
            if self.fill != "mean" and not spec.dtype.can_hold(self.fill):
                raise RuleError(f"{spec.dtype} cannot hold {self.fill:g}", hint="fill with another number")
            return Pad(source, spec, block, self.fill)
        if scope.no_initial_values:
            raise RuleError(f"fill: target: {scope.no_initial_values}")
        if key not in scope.want or scope.want[key].shape != spec.shape:
            raise RuleError(f"fill: target: the target has no '{key}' of shape {list(spec.shape)}")
        return Pad(source, spec, block, 0.0, Initial(scope.want[key], key, self.seed))
