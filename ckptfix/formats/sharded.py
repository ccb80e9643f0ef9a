"""`*.index.json`: a checkpoint of several files, each of which holds some of the tensors.

Format: huggingface_hub/serialization/_torch.py (`save_torch_state_dict`) and transformers' `save_pretrained`. The index
maps each key to the name of the file that holds it: `{"metadata": {"total_size": bytes}, "weight_map": {key: name}}`.
The names are those of files beside the index.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from msgspec import Struct

from ckptfix.counts import count
from ckptfix.digest import hash_text
from ckptfix.errors import CkptfixError, LimitExceeded, MalformedFile, TruncatedFile
from ckptfix.formats.base import (
    Contents,
    File,
    Node,
    Opaque,
    Pairs,
    ShardedFormat,
    TensorRef,
    access_error,
    file_beside,
    is_index,
    lacking,
    read_json_object,
)
from ckptfix.formats.base.json_object import decode_json

MAX_INDEX = 100_000_000
"""Bytes of an index: what the header of a safetensors file may have."""

MAX_SHARDS = 20_000
"""Files of one checkpoint; the largest published ones have some hundreds."""

_SHOWN = 3
_SHARD = re.compile(r"(.+)-\d{5}-of-\d{5}\.\w+")


class Sharded(ShardedFormat):
    """`model.safetensors.index.json` or `pytorch_model.bin.index.json`, with its shards."""

    name = "sharded checkpoint"

    def recognises(self, head: bytes, path: Path) -> bool:
        """Tell by the name, and by a brace."""
        return is_index(path.name) and head.lstrip().startswith(b"{")

    def open_shards(self, path: Path, open_file: Callable[[Path], Contents]) -> Contents:
        """Read the index and the headers of its shards.

        Raises MalformedFile for a name that leaves the folder, for a key that its shard lacks or that another has too,
        and for shards that were written at another time than the index of ours; TruncatedFile for missing shards.
        """
        index = _Index.read(path)
        files = {name: file_beside(path, name) for name in index.shards}
        if missing := lacking(path, files):
            raise TruncatedFile(
                f"lacks {len(missing)} of its {count(len(files), 'shard')}: {_list(missing)}",
                hint="copy or download them into the same folder",
            )
        opened: dict[str, Contents] = {}
        for name, file in files.items():
            try:
                opened[name] = open_file(file)
            except CkptfixError as error:
                error.where = error.where or str(file)
                raise
        index.check_set(opened)
        items, extra = _collect(index, opened)
        return Contents(
            path,
            f"sharded {next(iter(opened.values())).format}" if opened else self.name,
            Pairs(items),
            index.metadata(opened),
            tuple(found for name, one in opened.items() for found in _opaque(name, one)),
            (*index.notes(items), *_notes_on(extra), *_notes_on_unnamed(path, index.shards)),
        )


class _Index(Struct, frozen=True):
    """What an index says: the shard of each key, and what ckptfix noted when it wrote the set."""

    weight_map: Mapping[str, str]
    total_size: object
    receipt: str | None
    digests: Mapping[str, object]

    @classmethod
    def read(cls, path: Path) -> _Index:
        with File(path) as file:
            if file.size > MAX_INDEX:
                raise LimitExceeded(f"the index takes {file.size} bytes, {MAX_INDEX} are allowed")
            document = read_json_object(decode_json(file.read(0, file.size), "the index"), "the index")
        weight_map = document.get("weight_map")
        if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
            raise MalformedFile("the index has no weight_map from keys to names of files")
        if not weight_map:
            raise MalformedFile("the weight_map of the index is empty")
        if len(set(weight_map.values())) > MAX_SHARDS:
            raise LimitExceeded(f"the index names more than {MAX_SHARDS} shards")
        metadata = document.get("metadata", {})
        if not isinstance(metadata, dict):
            raise MalformedFile("the metadata of the index is no JSON object")
        receipt, digests = metadata.get("ckptfix"), metadata.get("ckptfix_shards", {})
        if not isinstance(receipt, str | None) or not isinstance(digests, dict):
            raise MalformedFile("the receipt in the index is not what ckptfix writes")
        return cls(weight_map, metadata.get("total_size"), receipt, digests)

    @property
    def shards(self) -> list[str]:
        """The names of the files, in their order."""
        return sorted(set(self.weight_map.values()))

    def check_set(self, opened: Mapping[str, Contents]) -> None:
        """Tell by the shards' own receipts whether they were written together with the index."""
        if self.receipt is None:
            return
        for name, one in opened.items():
            receipt = one.metadata.get("ckptfix")
            if receipt is None or hash_text(receipt) != self.digests.get(name):
                raise MalformedFile(
                    f"the shard {name} was not written together with the index",
                    hint="a copy or a run was cut short: copy the files again, or write them again",
                )

    def metadata(self, opened: Mapping[str, Contents]) -> Mapping[str, str]:
        """Join the metadata of the shards; the receipt of a set is the index's."""
        joined: dict[str, str] = {}
        for one in opened.values():
            joined = {**one.metadata, **joined}
        joined.pop("ckptfix", None)
        return joined if self.receipt is None else {**joined, "ckptfix": self.receipt}

    def notes(self, items: list[tuple[Node, Node]]) -> tuple[str, ...]:
        """Compare the total size; some writers count tied tensors twice, and none of the loaders asks."""
        held = sum(value.spec.nbytes for _, value in items if isinstance(value, TensorRef))
        if self.total_size in (None, held):
            return ()
        return (f"the index gives another total_size than the {held} bytes that its tensors take",)


def _collect(index: _Index, opened: Mapping[str, Contents]) -> tuple[list[tuple[Node, Node]], list[str]]:
    """Take the tensors of all shards, and list those that the index does not name."""
    items: list[tuple[Node, Node]] = []
    holders: dict[str, str] = {}
    extra: list[str] = []
    for name, one in opened.items():
        if not isinstance(one.root, Pairs):
            raise MalformedFile(f"the shard {name} holds no mapping from keys to tensors")
        for key, value in one.root.items:
            if not isinstance(value, TensorRef):
                items.append((key, value))
                continue
            if not isinstance(key, str):
                raise MalformedFile(f"the shard {name} has a key that is not text")
            if key in holders:
                raise MalformedFile(f"{key!r} lies in two shards, {holders[key]} and {name}")
            holders[key] = name
            if key not in index.weight_map:
                extra.append(key)
            items.append((key, value))
    wrong = [key for key, name in index.weight_map.items() if holders.get(key) != name]
    if wrong:
        key = wrong[0]
        found = f"it lies in {holders[key]}" if key in holders else "no shard has it"
        more = f"; so it is with {count(len(wrong) - 1, 'more key')}" if len(wrong) > 1 else ""
        raise MalformedFile(f"the index says that {key[:200]!r} is in {index.weight_map[key]}, {found}{more}")
    return items, extra


def _notes_on(extra: list[str]) -> tuple[str, ...]:
    """Say what the index leaves out: those tensors are read like the rest, so that nothing is lost unseen."""
    return (
        (f"the shards hold {count(len(extra), 'tensor')} that the index does not name: {_list(extra)}",)
        if extra
        else ()
    )


def _notes_on_unnamed(path: Path, named: list[str]) -> tuple[str, ...]:
    """Say which files beside the index are called like its shards: of another set, or of a run that was cut short."""
    sets = {found[1] for name in named if (found := _SHARD.fullmatch(name))}
    try:
        beside = sorted({file.name for file in path.parent.iterdir()}.difference(named))
    except OSError as error:
        raise access_error(path.parent, error) from error
    unnamed = [name for name in beside if (found := _SHARD.fullmatch(name)) and found[1] in sets]
    if not unnamed:
        return ()
    return (f"{count(len(unnamed), 'shard')} beside the index that it does not name: {_list(unnamed)}: left out",)


def _opaque(name: str, one: Contents) -> list[tuple[str, Opaque]]:
    return [(f"{name}: {place or 'the root'}", value) for place, value in one.opaque]


def _list(names: list[str]) -> str:
    shown = ", ".join(name[:200] for name in names[:_SHOWN])
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown
