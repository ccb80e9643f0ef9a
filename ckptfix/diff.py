"""Compare the tensors at hand with those an architecture wants."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from ckptfix.tensors import DType, Kind, TensorSpec

_FAMILY: dict[Kind, str] = {"float": "float", "complex": "complex", "int": "int", "bool": "int"}


class Diff(Struct, frozen=True):
    """Keys by fate. A key is in exactly one of the first four; `dtypes` is a part of `matched`."""

    matched: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[str, ...]
    dtypes: tuple[str, ...]

    @property
    def is_clean(self) -> bool:
        """Whether a strict load would succeed."""
        return not (self.missing or self.unexpected or self.mismatched)


def compare(have: Mapping[str, TensorSpec], want: Mapping[str, TensorSpec]) -> Diff:
    """Sort all keys of both sides by whether their shapes agree.

    A dtype that a load would cast is listed in `dtypes`; float against integer or complex is a mismatch.
    """
    matched: list[str] = []
    missing: list[str] = []
    mismatched: list[str] = []
    dtypes: list[str] = []
    for key, wanted in want.items():
        found = have.get(key)
        if found is None:
            missing.append(key)
        elif not fits(found, wanted):
            mismatched.append(key)
        else:
            matched.append(key)
            if found.dtype is not wanted.dtype:
                dtypes.append(key)
    unexpected = tuple(key for key in have if key not in want)
    return Diff(tuple(matched), tuple(missing), unexpected, tuple(mismatched), tuple(dtypes))


def fits(have: TensorSpec, want: TensorSpec) -> bool:
    """Tell whether a strict load accepts the tensor and keeps the meaning of its values."""
    return have.shape == want.shape and (have.dtype is want.dtype or same_family(have.dtype, want.dtype))


def same_family(have: DType, want: DType) -> bool:
    """Tell whether two dtypes differ in width at most; booleans count as integers."""
    return _FAMILY[have.kind] == _FAMILY[want.kind]
