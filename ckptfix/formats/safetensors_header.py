"""The JSON header of a safetensors file: what the tensors are, and which bytes are theirs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from operator import itemgetter
from typing import NamedTuple

from msgspec import DecodeError, Raw, Struct
from msgspec.json import Decoder

from ckptfix.errors import LimitExceeded, MalformedFile, TruncatedFile
from ckptfix.formats.base import check_shape, contiguous_stride, is_unicode, read_json_object
from ckptfix.formats.base.json_object import check_items, decode_json
from ckptfix.tensors import DType, Shape, TensorSpec

DTYPES = {str(dtype): dtype for dtype in DType if dtype is not DType.C128}
"""The dtypes of the format, by their names in it."""
_SUB_BYTE = {DType.F4, DType.F6_E2M3, DType.F6_E3M2}


class Kind(NamedTuple):
    """What all tensors of one dtype and shape have in common."""

    spec: TensorSpec
    nbytes: int
    stride: tuple[int, ...]


Span = tuple[int, int, str, Kind]
"""The bytes of a tensor, from and to, counted from the end of the header; its key, and what it is."""


class Header(NamedTuple):
    """What a header says: the tensors in its order, and the texts beside them."""

    spans: list[Span]
    metadata: Mapping[str, str]


class _Entry(Struct, frozen=True, forbid_unknown_fields=True):
    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


_MEMBERS = Decoder(dict[str, Raw])
_ENTRY = Decoder(_Entry)
_QUOTES_OF_ENTRY = 10
_MOST_PLAIN = 32 << 20
"""Bytes of a header that may be held beside what is read of it: a hundred thousand tensors have some ten million."""


def read_header(raw: bytes, available: int) -> Header:
    """Read a header, after which the file has so many bytes. Raises MalformedFile, LimitExceeded or TruncatedFile.

    It must begin at once and end in nothing but spaces.
    """
    if not raw.startswith(b"{"):
        raise MalformedFile("the header does not begin with '{'")
    raw = raw.rstrip(b" ")
    if not raw.endswith(b"}"):
        raise MalformedFile("the header is cut off, or padded with something other than spaces")
    check_items(raw, "the header")
    members = _read_plain(raw)
    if members is None:
        text = decode_json(raw, "the header")
        del raw  # it may be as large as all else together, as may the text
        found = read_json_object(text, "the header")
        del text
        members = _check_members(found)
    entries, metadata = members
    for key, value in metadata.items():
        if not is_unicode(value):
            raise MalformedFile(f"the metadata {key[:80]!r} is not Unicode")
    spans = _read_spans(entries)
    _check_tiling(spans, available)
    return Header(spans, metadata)


_Members = tuple[Mapping[str, _Entry], Mapping[str, str]]


def _read_plain(raw: bytes) -> _Members | None:
    """Read a header as nearly all are, several times as fast; None for any other. Raises MalformedFile.

    Where no name is escaped, each text of an entry has two quotation marks: their number tells of a name given twice.
    """
    if len(raw) > _MOST_PLAIN:
        return None
    try:
        members = _MEMBERS.decode(raw)
    except (DecodeError, RecursionError):
        return None
    aside = bytes(members.pop("__metadata__", b""))
    entries: dict[str, _Entry] = {}
    for key, member in members.items():
        try:
            entries[key] = _ENTRY.decode(member)
        except (DecodeError, RecursionError):
            alone = decode_json(b'{"":%b}' % bytes(member), "the header")
            _read_entry(key, read_json_object(alone, "the header")[""])  # says what is wrong with it
            return None
    quotes, escapes = (raw.count(mark) - aside.count(mark) for mark in (b'"', b"\\"))
    minus_zeros = raw.count(b"-0") - aside.count(b"-0") if b"-" in raw else 0
    if escapes or minus_zeros or quotes != _QUOTES_OF_ENTRY * len(entries) + 2 * bool(aside):
        return None
    if not aside.startswith(b"{"):
        return None if aside else (entries, {})
    return entries, _check_metadata(read_json_object(decode_json(aside, "the header"), "the header"))


def _check_members(header: dict[str, object]) -> _Members:
    metadata = _check_metadata(header.pop("__metadata__", {}))
    return {key: _read_entry(key, entry) for key, entry in header.items()}, metadata


def _check_metadata(metadata: object) -> Mapping[str, str]:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise MalformedFile("__metadata__ must map text to text")
    return metadata


def _read_entry(key: str, entry: object) -> _Entry:
    """Check the types of an entry."""
    if not isinstance(entry, dict) or entry.keys() != set(_Entry.__struct_fields__):
        raise MalformedFile(f"{key[:80]!r}: an entry must have exactly dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(offsets, list) or [*map(type, offsets)] != [int, int]:
        raise MalformedFile(f"{key[:80]!r}: data_offsets must be two integers")
    if not isinstance(dtype, str):
        raise MalformedFile(f"{key[:80]!r}: unknown dtype {str(dtype)[:40]!r}")
    try:
        return _Entry(dtype, check_shape(shape), (offsets[0], offsets[1]))
    except (MalformedFile, LimitExceeded) as error:
        raise type(error)(f"{key[:80]!r}: {error.message}") from error


def _read_spans(entries: Mapping[str, _Entry]) -> list[Span]:
    """Check each entry of the header by itself."""
    kinds: dict[tuple[str, Shape], Kind] = {}
    spans: list[Span] = []
    for key, entry in entries.items():
        begin, end = entry.data_offsets
        if not 0 <= begin <= end:
            raise MalformedFile(f"{key[:80]!r}: data_offsets run backwards, from {begin} to {end}")
        kind = kinds.get((entry.dtype, entry.shape))
        if kind is None:
            kind = kinds[entry.dtype, entry.shape] = _read_kind(key, entry)
        if end - begin != kind.nbytes:
            raise MalformedFile(
                f"{key[:80]!r}: {kind.spec} takes {kind.nbytes} bytes, data_offsets give it {end - begin}"
            )
        spans.append((begin, end, key, kind))
    return spans


def _read_kind(key: str, entry: _Entry) -> Kind:
    """Check the dtype and the shape of a tensor."""
    if entry.dtype not in DTYPES:
        raise MalformedFile(f"{key[:80]!r}: unknown dtype {entry.dtype[:40]!r}")
    try:
        spec = TensorSpec(check_shape(entry.shape), DTYPES[entry.dtype])
    except (MalformedFile, LimitExceeded) as error:
        raise type(error)(f"{key[:80]!r}: {error.message}") from error
    if spec.dtype in _SUB_BYTE and spec.numel * spec.dtype.bits % 8:
        raise MalformedFile(f"{key[:80]!r}: {spec} does not end on a whole byte")
    return Kind(spec, spec.nbytes, contiguous_stride(spec.shape))


def _check_tiling(spans: Iterable[Span], available: int) -> None:
    """Check that the tensors fill the data section from its first byte to its last, once."""
    position = 0
    for begin, end, key, _ in sorted(spans, key=itemgetter(0, 1)):
        if begin < position:
            raise MalformedFile(f"{key[:80]!r} overlaps another tensor: it begins at {begin}, before {position}")
        if begin > position:
            raise MalformedFile(f"bytes {position} to {begin} of the data belong to no tensor, before {key[:80]!r}")
        position = end
    if position > available:
        raise TruncatedFile(
            f"holds {available} bytes of data where its header describes {position}",
            hint="download or copy the file again",
        )
    if position < available:
        raise MalformedFile(f"has {available - position} bytes after its last tensor")
