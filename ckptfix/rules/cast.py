"""Change the dtype of floating tensors."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from ckptfix.edits import Edit, Example, Inverse, Scope, lossy
from ckptfix.expr import Cast as CastExpr
from ckptfix.expr import Expr
from ckptfix.rules.base import Patterns, Rule, edit_each
from ckptfix.tensors import FLOATS, DType

_NAMES = ", ".join(FLOATS)

_WIDER = {
    DType.F16: (DType.F32, DType.F64),
    DType.BF16: (DType.F32, DType.F64),
    DType.F32: (DType.F64,),
}
"""The dtypes that have every number of a narrower one."""


def _read_dtype(value: object) -> DType:
    dtype = DType.from_text(str(value))
    if dtype is None or dtype not in FLOATS:
        raise ValueError(f"'{value}' is no floating dtype; known: {_NAMES}")
    return dtype


FloatDType = Annotated[DType, BeforeValidator(_read_dtype), WithJsonSchema({"type": "string"})]
"""A floating dtype that torch has, by safetensors' name or torch's."""


class Cast(Rule):
    """Change the dtype of floating tensors; integers and booleans that a pattern matches stay as they are."""

    op: Literal["cast"]
    keys: Patterns = Field(description="Patterns of the keys to change.")
    dtype: FloatDType = Field(description=f"One of {_NAMES}, or torch's name for it.")

    examples = (
        Example(
            rule='{op: cast, keys: "**", dtype: BF16}',
            have={"w": [2], "n": "I64 []"},
            want={"w": [2], "n": "I64 []"},
            gives={"w": "cast(w, BF16)", "n": "n"},
        ),
        Example(rule='{op: cast, keys: "**", dtype: float32}', have={"w": [2]}, want={"w": [2]}, gives={"w": "w"}),
        Example(rule='{op: cast, keys: "**", dtype: I8}', have={}, want={}, fails="'I8' is no floating dtype"),
    )

    def edit(self, scope: Scope) -> Edit:
        """Wrap the selected rows that are floating and of another dtype."""

        def cast(key: str) -> Expr | None:
            spec = scope.table[key].spec
            changes = spec.dtype.kind == "float" and spec.dtype is not self.dtype
            return CastExpr(scope.table[key], self.dtype) if changes else None

        return edit_each(self.keys, scope, cast)

    def inverse(self, scope: Scope, edit: Edit) -> Inverse:
        """Cast back, where the new dtype has every number of the old one."""
        old = {made.key: scope.table[made.key].spec.dtype for made in edit.made}
        if narrowed := sorted(dtype for dtype in set(old.values()) if self.dtype not in _WIDER.get(dtype, ())):
            return lossy(f"{narrowed[0]} is rounded to {self.dtype}")
        groups = {dtype: [key for key in old if old[key] is dtype] for dtype in dict.fromkeys(old.values())}
        return Inverse("exact", tuple({"op": "cast", "keys": keys, "dtype": str(d)} for d, keys in groups.items()))
