"""A folder of torch.distributed.checkpoint: `.metadata`, and `__RANK_NUMBER.distcp` files that hold the items.

Format: torch/distributed/checkpoint/filesystem.py (`FileSystemWriter`). An item is what `torch.save` writes of one
chunk of a tensor, or of one object, at some place of a file. No process group is needed, and no rank.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ckptfix.counts import count
from ckptfix.digest import hash_text
from ckptfix.errors import CkptfixError, MalformedFile, TruncatedFile
from ckptfix.formats.base import (
    Contents,
    File,
    Format,
    Joined,
    Node,
    Opaque,
    Pairs,
    Piece,
    Stamp,
    Storage,
    TensorRef,
    Window,
    contiguous_stride,
    file_beside,
    lacking,
)
from ckptfix.tensors import TensorSpec

if TYPE_CHECKING:  # every file is shown to this format first: the rest is loaded for its own
    from ckptfix.formats.distributed.boxes import Box
    from ckptfix.formats.distributed.metadata import Item, Metadata, Saved, Step, Where

_SHOWN = 3

_Place = tuple[str, tuple[int, ...] | None]
"""A key, and the offsets of a chunk of it; None for bytes."""


class DistributedCheckpoint(Format):
    """The `.metadata` of a distributed checkpoint, with the files that it names."""

    name = "torch distributed"

    def recognises(self, head: bytes, path: Path) -> bool:
        """Tell by the name, and by a pickle of protocol 2 or above."""
        return path.name == ".metadata" and head.startswith(b"\x80")

    def open(self, path: Path) -> Contents:
        """Read the metadata, and the headers of every item.

        Raises TruncatedFile where a file is missing or too short, MalformedFile where chunks do not make up their
        tensor, or an item is not what the metadata say.
        """
        from ckptfix.formats.distributed.metadata import read_metadata
        from ckptfix.formats.pickle import limits

        with File(path) as file:
            if file.size > limits.PICKLE_NBYTES:
                raise MalformedFile(f"takes {file.size} bytes, {limits.PICKLE_NBYTES} are allowed")
            held = sum(one.stat().st_size for one in path.parent.glob("*") if one.is_file())
            metadata = read_metadata(file.read(0, file.size), held)
        names = sorted({item.file for item in metadata.items.values()})
        if missing := lacking(path, names):
            shown = ", ".join(missing[:_SHOWN]) + (", ..." if len(missing) > _SHOWN else "")
            raise TruncatedFile(
                f"lacks {len(missing)} of its {count(len(names), 'file')}: {shown}",
                hint="copy the files of every rank into the same folder",
            )
        noted, stamps = _check_files(path, names, metadata)
        opened: dict[_Place, Node] = {}
        opaque = list(metadata.opaque)
        for where, node, found in _open_items(path, metadata.items):
            opened[where] = node
            opaque += [(f"{where[0]}: {place or 'the root'}", value) for place, value in found]
        values = [(key, _value(key, saved, opened)) for key, saved in metadata.values.items()]
        if opened:
            key, _ = next(iter(opened))
            raise MalformedFile(f"the metadata place an item of {key[:200]!r} that they do not describe")
        return Contents(path.parent, self.name, _nest(values, metadata), noted, tuple(opaque), stamps=stamps)


def _check_files(path: Path, names: Sequence[str], metadata: Metadata) -> tuple[dict[str, str], dict[Path, Stamp]]:
    """Tell by the files' own receipts whether they were written together with the metadata.

    Gives the metadata that they note, joined, and the state that each file is in.
    """
    from ckptfix.formats.distributed.trailer import read_trailer

    joined: dict[str, str] = {}
    stamps: dict[Path, Stamp] = {}
    for name in names:
        with File(file_beside(path, name)) as file:
            stamps[file.path] = file.stamp
            trailer = read_trailer(file) if metadata.receipt is not None else None
        if metadata.receipt is not None:
            if trailer is None or hash_text(trailer.receipt) != metadata.digests.get(name):
                raise MalformedFile(
                    f"the file {name} was not written together with the metadata",
                    hint="a copy or a run was cut short: copy the files again, or write them again",
                )
            joined = {**trailer.metadata, **joined}
    return joined if metadata.receipt is None else {**joined, "ckptfix": metadata.receipt}, stamps


def _open_items(
    path: Path, items: Mapping[Where, Item]
) -> Iterator[tuple[Where, Node, tuple[tuple[str, Opaque], ...]]]:
    """Open each item, file after file. Two items may not share bytes."""
    from ckptfix.formats.zip.saved import read_saved

    by_file: dict[str, list[tuple[Item, Where]]] = {}
    for where, item in items.items():
        by_file.setdefault(item.file, []).append((item, where))
    for name, members in by_file.items():
        with File(file_beside(path, name)) as file:
            end = 0
            for item, where in sorted(members, key=lambda member: member[0].offset):
                if item.offset < end:
                    raise MalformedFile(f"two items lie on the same bytes of {name}, before {item.offset}")
                end = item.offset + item.nbytes
                try:
                    node, _, found = read_saved(Window(file, item.offset, item.nbytes))
                except CkptfixError as error:
                    # The bytes of one item are wrong, not the file's.
                    raise type(error)(
                        f"the item of {where[0][:200]!r} at byte {item.offset} of {name}: {error.message}",
                        hint=error.hint,
                    ) from error
                yield where, node, found


def _value(key: str, saved: Saved | None, opened: dict[_Place, Node]) -> Node:
    """Take the items of a key out of those that were opened, and make its value of them."""
    if saved is None:
        if (key, None) not in opened:
            raise MalformedFile(f"the metadata do not say where {key[:200]!r} lies")
        return opened.pop((key, None))
    pieces: list[tuple[Box, Node]] = []
    for box in saved.chunks:
        node = opened.pop((key, box.offsets), None)
        if box.numel:
            if node is None:
                raise MalformedFile(f"the metadata do not say where a chunk of {key[:200]!r} lies: {list(box.offsets)}")
            pieces.append((box, node))
    try:
        return _tensor(saved, pieces)
    except MalformedFile as error:
        raise MalformedFile(f"{key[:200]!r}: {error.message}") from error


def _tensor(saved: Saved, pieces: list[tuple[Box, Node]]) -> Node:
    from ckptfix.formats.distributed.boxes import check_cover

    check_cover(saved.shape, [box for box, _ in pieces])
    if saved.dtype is None:
        # A quantised tensor, say: whole it stays a record, as in any other file.
        return pieces[0][1] if len(pieces) == 1 and isinstance(pieces[0][1], Opaque) else Opaque("torch", "Tensor")
    spec = TensorSpec(saved.shape, saved.dtype)
    if not pieces:
        return TensorRef(spec, Storage.holding(b""), 0, contiguous_stride(spec.shape))
    parts: list[Piece] = []
    for box, node in pieces:
        if not isinstance(node, TensorRef) or node.spec != TensorSpec(box.shape, saved.dtype):
            found = node.spec if isinstance(node, TensorRef) else type(node).__name__
            raise MalformedFile(f"a chunk is {found}, the metadata say {TensorSpec(box.shape, saved.dtype)}")
        if len(pieces) > 1 and isinstance(node.storage, Storage) and node.storage.encoding != "raw":
            raise MalformedFile("a chunk is deflated, which torch never does")
        parts.append(Piece(box.offsets, node))
    if len(parts) == 1:
        return parts[0].ref
    return TensorRef(spec, Joined(tuple(parts)), 0, contiguous_stride(spec.shape))


def _nest(values: list[tuple[str, Node]], metadata: Metadata) -> Pairs:
    """Put the values into the containers that they were saved in. A list is a mapping from its indices here."""
    root = Pairs()
    inside: dict[tuple[Step, ...], Pairs] = {(): root}
    taken: set[tuple[Step, ...]] = set()
    for key, value in values:
        path = metadata.paths.get(key, (key,))
        for length in range(1, len(path)):
            if path[:length] not in inside:
                holder = inside[path[:length]] = Pairs()
                inside[path[: length - 1]].items.append((path[length - 1], holder))
        if path in taken or path in inside or any(path[:length] in taken for length in range(1, len(path))):
            raise MalformedFile(f"two values lie at one place of what was saved: {key[:200]!r}")
        taken.add(path)
        inside[path[:-1]].items.append((path[-1], value))
    return root
