"""Count NaN and infinity, and refuse those that a rule makes of finite numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from msgspec import Struct, structs

from ckptfix.errors import NonFinite, Origin
from ckptfix.execute.numbers import is_known, numpy_dtype
from ckptfix.expr import Cast, Constant, Expr, Initial, Pad, Read, inputs
from ckptfix.tensors import DType

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

_INFINITE = {
    DType.F16: (2, 0x7C00),
    DType.BF16: (2, 0x7F80),
    DType.F32: (4, 0x7F80_0000),
    DType.C64: (4, 0x7F80_0000),
    DType.F64: (8, 0x7FF0_0000_0000_0000),
    DType.C128: (8, 0x7FF0_0000_0000_0000),
}
"""The bytes of a real number, and the bits of infinity: finite numbers are below, NaN above."""
_PIECE = 1 << 20
"""Elements that are looked at at once: a mask of a whole tensor would take as much memory as the tensor."""


class Count(Struct, frozen=True):
    """How many elements are NaN, and how many infinite. A complex number is what its worse part is."""

    nan: int = 0
    infinite: int = 0

    def __add__(self, other: Count) -> Count:
        return Count(self.nan + other.nan, self.infinite + other.infinite)

    def __bool__(self) -> bool:
        return bool(self.nan or self.infinite)

    def __str__(self) -> str:
        infinities = "infinity" if self.infinite == 1 else "infinities"
        named = {f"{self.nan} NaN": self.nan, f"{self.infinite} {infinities}": self.infinite}
        return " and ".join(text for text, number in named.items() if number) or "none"

    def to_json(self) -> dict[str, int]:
        """Give both numbers."""
        return structs.asdict(self)


def count(data: bytes | memoryview, dtype: DType) -> Count:
    """Count in the little-endian bytes of numbers, which are a whole number of elements."""
    import numpy as np

    total = Count()
    if dtype.kind not in ("float", "complex") or not is_known(dtype):
        return total
    numbers = np.frombuffer(data, numpy_dtype(dtype))
    for start in range(0, len(numbers), _PIECE):
        piece = numbers[start : start + _PIECE]
        if not _finite(piece, dtype):
            nan = np.isnan(piece)
            total += Count(int(nan.sum()), int((np.isinf(piece) & ~nan).sum()))
    return total


def count_in(tensor: Tensor) -> Count:
    """Count in a tensor of torch."""
    from ckptfix.execute.evaluate import to_bytes

    dtype = DType.from_torch_name(str(tensor.dtype).removeprefix("torch."))
    return Count() if dtype is None else count(to_bytes(tensor), dtype)


def _finite(numbers: NDArray[np.generic], dtype: DType) -> bool:
    """Tell whether all are finite, by the largest of their bits: of positive numbers as signed ones, of negative so."""
    import numpy as np

    if dtype.bits == 8:
        every = np.arange(256, dtype=np.uint8)
        return bool(np.isfinite(every.view(numbers.dtype))[numbers.view(np.uint8)].all())
    width, infinite = _INFINITE[dtype]
    bits = numbers.view(f"u{width}")
    negative = infinite | 1 << 8 * width - 1
    return not len(bits) or (int(bits.view(f"i{width}").max()) < infinite and int(bits.max()) < negative)


def refuse_introduced(
    key: str, expr: Expr, made: Count, given: Callable[[Read | Initial], Count], where: Origin | None
) -> None:
    """Raise NonFinite where a computed tensor has NaN or infinities and nothing that it is made of has any.

    `given` counts in the tensors that it was made of. An infinity may become a NaN on the way, and either may spread;
    a NaN does not become an infinity. What a rule names itself, as `fill` with `.inf`, is meant.
    """
    if not made:
        return
    had = sum(_sources(expr, given), Count())
    new = Count(0 if had else made.nan, 0 if had.infinite else made.infinite)
    if new:
        narrow = isinstance(expr, Cast) and expr.dtype is not DType.BF16 and expr.source.spec.dtype.bits > 8
        hint = "cast it to BF16, whose range is that of F32, or leave it as it is" if narrow else None
        raise NonFinite(f"'{key}' would get {new} that its source does not have: {expr}", where=where, hint=hint)


def _sources(expr: Expr, given: Callable[[Read | Initial], Count]) -> Iterator[Count]:
    match expr:
        case Read() | Initial():
            yield given(expr)
        case Constant(value=value):
            yield _named(value)
        case Pad(value=value) if not isinstance(value, str):
            yield _named(value)
    for part in inputs(expr):
        yield from _sources(part, given)


def _named(value: float) -> Count:
    return Count(int(value != value), int(value in (float("inf"), float("-inf"))))
