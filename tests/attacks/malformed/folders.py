"""Indexes of shards, and folders of torch.distributed.checkpoint, whose files are not what they say."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

from tests.formats.making import integer, name, pickle_of, safetensors_bytes, text

from ..case import Case

INDEX = "model.safetensors.index.json"
_SHARD = "model-00001-of-00001.safetensors"


def shard(*keys: str) -> bytes:
    """One safetensors file with a number under each key."""
    entries = {key: {"dtype": "F32", "shape": [1], "data_offsets": [4 * n, 4 * n + 4]} for n, key in enumerate(keys)}
    return safetensors_bytes(entries, bytes(4 * len(keys)))


def index(weight_map: object = None, raw: bytes | None = None, **files: bytes) -> Callable[[Path], None]:
    """An index, its sound shard, and other files."""

    def make(folder: Path) -> None:
        document = {"metadata": {}, "weight_map": {"w": _SHARD} if weight_map is None else weight_map}
        (folder / INDEX).write_bytes(json.dumps(document).encode() if raw is None else raw)
        for file, data in {_SHARD: shard("w"), **files}.items():
            (folder / file).write_bytes(data)

    return make


def _named(shard_name: object) -> Callable[[Path], None]:
    return index({"w": shard_name})


def _special(put: Callable[[Path], object]) -> Callable[[Path], None]:
    """A shard that is something else than a file."""

    def make(folder: Path) -> None:
        index({"w": "evil.safetensors"})(folder)
        put(folder / "evil.safetensors")

    return make


def _link_out(path: Path) -> None:
    outside = path.parent.parent / "outside.safetensors"
    outside.write_bytes(shard("w"))
    path.symlink_to(outside)


_INDEXES: dict[str, Callable[[Path], None]] = {
    "a shard above the folder": _named("../outside.safetensors"),
    "a shard above a folder inside": _named("x/../../outside.safetensors"),
    "a shard in a folder inside": _named("x/model.safetensors"),
    "an absolute shard": _named("/etc/passwd"),
    "a shard behind a backslash": _named("..\\outside.safetensors"),
    "a shard with a NUL": _named(_SHARD + "\0.txt"),
    "a shard with a newline": _named("a\nb.safetensors"),
    "a shard of no name": _named(""),
    "a shard that is the folder": _named("."),
    "a shard that is the folder above": _named(".."),
    "a shard of a very long name": _named("x" * 5_000),
    "a shard that is a number": _named(1),
    "a shard that is a list": _named([_SHARD]),
    "a shard that is the index itself": _named(INDEX),
    "a shard that is missing": _named("model-00002-of-00002.safetensors"),
    "a shard that is empty": index({"w": "evil.safetensors"}, **{"evil.safetensors": b""}),
    "a shard that is cut": index({"w": "evil.safetensors"}, **{"evil.safetensors": shard("w")[:-1]}),
    "a shard that links out of the folder": _special(_link_out),
    "a shard that links to itself": _special(lambda path: path.symlink_to(path.name)),
    "a key that its shard lacks": index({"w": _SHARD, "v": _SHARD}),
    "a key that lies in another shard": index(
        {"w": _SHARD, "v": _SHARD, "u": "b.safetensors"}, **{"b.safetensors": shard("u", "v")}
    ),
    "a key that lies in two shards": index({"w": _SHARD, "v": "b.safetensors"}, **{"b.safetensors": shard("v", "w")}),
    "no JSON": index(raw=b"{weight_map}"),
    "a list": index(raw=b'{"weight_map": ["w"]}'),
    "no weight_map": index(raw=b'{"metadata": {}}'),
    "an empty weight_map": index({}),
    "a weight_map of texts": index("w"),
    "the weight_map twice": index(raw=b'{"weight_map": {"w": "a"}, "weight_map": {"w": "b"}}'),
    "a key twice": index(raw=b'{"weight_map": {"w": "a", "w": "b"}}'),
    "metadata that are a list": index(raw=b'{"metadata": [], "weight_map": {"w": "a"}}'),
    "brackets inside one another": index(raw=b'{"a":' + b"[" * 1_000_000 + b"}"),
    "a hundred thousand shards": index({f"w{n}": f"{n}.safetensors" for n in range(100_000)}),
    "twenty million blanks": index(raw=b"{" + b" " * 20_000_000),
}

_UNREADABLE: dict[str, Callable[[Path], None]] = {
    "a shard that is a pipe": _special(lambda path: os.mkfifo(path)),
    "a shard that is a folder": _special(lambda path: path.mkdir()),
}
"""What is no regular file is no content that could be refused: reading fails (exit 4)."""

_STATE = "torch.distributed.checkpoint.metadata"


def _object(kind: str, state: bytes) -> bytes:
    return name(_STATE, kind) + b")\x81}(" + state + b"ub"


def _metadata(values: bytes, items: bytes) -> bytes:
    state = text("state_dict_metadata") + b"}(" + values + b"u" + text("storage_data") + b"}(" + items + b"u"
    return pickle_of(_object("Metadata", state))


def _where(key: str = "w") -> bytes:
    return _object("MetadataIndex", text("fqn") + text(key) + text("offset") + b"N" + text("index") + b"N")


def _item(path: bytes | None = None, offset: int = 0, length: int = 8) -> bytes:
    state = text("relative_path") + (text("__0_0.distcp") if path is None else path)
    state += text("offset") + integer(offset) + text("length") + integer(length)
    return name("torch.distributed.checkpoint.filesystem", "_StorageInfo") + b")\x81}(" + state + b"ub"


def _distributed(metadata: bytes, item: bytes | None = None) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / ".metadata").write_bytes(metadata)
        if item is not None:
            (folder / "__0_0.distcp").write_bytes(item)

    return make


_BYTES = _object("BytesStorageMetadata", text("x") + b"N")


def _one(item: bytes, data: bytes | None = bytes(64)) -> Callable[[Path], None]:
    return _distributed(_metadata(text("w") + _BYTES, _where() + item), data)


_DISTRIBUTED: dict[str, Callable[[Path], None]] = {
    "cut": _distributed(_metadata(text("w") + _BYTES, _where() + _item())[:80]),
    "two million MARKs": _distributed(b"\x80\x02" + b"(" * 2_000_000),
    "bytes after the pickle": _distributed(_metadata(text("w") + _BYTES, _where() + _item()) + b"more", bytes(64)),
    "a file that is missing": _one(_item(), None),
    "a file above the folder": _one(_item(text("../outside.distcp"))),
    "an absolute file": _one(_item(text("/etc/passwd"))),
    "a file with a NUL": _one(_item(text("__0_0.distcp\0"))),
    "a file that is a number": _one(_item(integer(3))),
    "a negative offset": _one(_item(offset=-8)),
    "an offset beyond the file": _one(_item(offset=1 << 40)),
    "an offset that overflows": _one(_item(offset=1 << 64)),
    "a negative length": _one(_item(length=-1)),
    "a length beyond the file": _one(_item(length=1 << 40)),
    "an item that is no archive": _one(_item()),
    "an empty file": _one(_item(), b""),
    "no items": _distributed(pickle_of(_object("Metadata", text("state_dict_metadata") + b"}")), bytes(64)),
    "values that are a list": _distributed(
        pickle_of(_object("Metadata", text("state_dict_metadata") + b"]" + text("storage_data") + b"}"))
    ),
    "a key twice": _distributed(_metadata((text("w") + _BYTES) * 2, _where() + _item()), bytes(64)),
    "an item twice": _distributed(_metadata(text("w") + _BYTES, (_where() + _item()) * 2), bytes(64)),
    "an item that nothing describes": _distributed(_metadata(text("v") + _BYTES, _where() + _item()), bytes(64)),
    "nothing but a command": _distributed(pickle_of(name("os", "system") + text("true") + b"\x85R")),
}

CASES = [
    *(
        Case(f"index: {name}", INDEX, make, unknown=name == "a shard that is the index itself")
        for name, make in _INDEXES.items()
    ),
    *(Case(f"index: {name}", INDEX, make, status=4) for name, make in _UNREADABLE.items()),
    *(
        Case(
            f"distributed: {name}",
            ".metadata",
            make,
            unknown=name in ("values that are a list", "nothing but a command"),
        )
        for name, make in _DISTRIBUTED.items()
    ),
]
