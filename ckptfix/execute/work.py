"""What writing a plan comes to, in bytes of output."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct, structs

from ckptfix.execute.moves import move_of
from ckptfix.expr import Expr
from ckptfix.formats.base import TensorRef


class Work(Struct):
    """Bytes by how they come about.

    `copied` are runs of the source as they lie, which a file system that shares blocks can share; `gathered` the same
    numbers in other places, or unpacked, or held against a checksum; `cast` and `computed` are other numbers.
    """

    copied: int = 0
    gathered: int = 0
    cast: int = 0
    computed: int = 0

    def to_json(self) -> dict[str, int]:
        """Give the fields."""
        return structs.asdict(self)


def work_of(exprs: Mapping[str, Expr], tensors: Mapping[str, TensorRef]) -> Work:
    """Add up the outputs of a plan."""
    work = Work()
    for expr in exprs.values():
        nbytes = expr.spec.nbytes
        move = move_of(expr, tensors)
        if move is None:
            work.computed += nbytes
        elif move.casts:
            work.cast += nbytes
        elif move.ranges is None:
            work.gathered += nbytes
        else:
            work.copied += nbytes
    return work
