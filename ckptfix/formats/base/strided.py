"""Strided views: which bytes of a storage they need, and how these are laid out contiguously."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from ckptfix.formats.base.file import CHUNK
from ckptfix.formats.base.values import TensorRef

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def span(ref: TensorRef) -> tuple[int, int]:
    """Give the bytes of the storage, from and to, that the elements of a tensor lie between."""
    bits = ref.spec.dtype.bits
    reach = sum((extent - 1) * step for extent, step in zip(ref.spec.shape, ref.stride, strict=True))
    return ref.offset * bits // 8, ((ref.offset + reach + 1) * bits + 7) // 8


def gather(data: bytes, ref: TensorRef, byteorder: Literal["little", "big"]) -> Iterator[bytes]:
    """Lay the strided, byte-swapped or lazily negated view over `data` out contiguously, little-endian."""
    import numpy as np

    dtype = ref.spec.dtype
    itemsize = dtype.bits // 8
    parts = 2 if dtype.kind == "complex" else 1
    order = ">" if byteorder == "big" else "<"
    # One more axis of real and imaginary parts: all that follows is then integer arithmetic on each part.
    width = itemsize // parts
    axes = [(extent, step) for extent, step in zip(ref.spec.shape, ref.stride, strict=True) if extent != 1]
    view = np.lib.stride_tricks.as_strided(
        np.frombuffer(data, f"{order}u{width}"),
        (*(extent for extent, _ in axes), parts),
        (*(step * itemsize for _, step in axes), width),
        writeable=False,
    )
    for block in _blocks(view):
        flat = block.reshape(-1, parts).astype(f"<u{width}")
        if dtype.kind in ("float", "complex"):
            sign = flat.dtype.type(1 << (8 * width - 1))
            if "conj" in ref.lazy and parts == 2:
                flat[:, 1] ^= sign
            if "neg" in ref.lazy:
                flat ^= sign
        elif "neg" in ref.lazy:
            flat = ~flat + flat.dtype.type(1)
        yield flat.tobytes()


def _blocks(view: NDArray[np.generic]) -> Iterator[NDArray[np.generic]]:
    """Cut a view along its outer axes into blocks of at most CHUNK bytes, in order.

    A view may be far larger than what it views (`expand`), so it is never copied as a whole.
    """
    if view.nbytes <= CHUNK or view.ndim <= 1:
        yield view
        return
    rows = CHUNK // (view.nbytes // view.shape[0])
    if rows == 0:
        for row in view:
            yield from _blocks(row)
    else:
        for start in range(0, view.shape[0], rows):
            yield view[start : start + rows]
