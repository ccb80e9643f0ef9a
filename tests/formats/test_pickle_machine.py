"""The inert machine: every opcode, nothing executed, and no pickle that costs more than it should."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

from ckptfix.formats import Opaque, Pairs, open_contents
from ckptfix.formats.base import Node
from ckptfix.formats.pickle.audit import list_opaque
from ckptfix.formats.pickle.machine import Machine
from ckptfix.formats.pickle.stream import Stream

from .making import (
    RUN_COMMAND,
    integer,
    mapping,
    name,
    pickle_of,
    tensor,
    text,
    write,
    zip_bytes,
)


def _load(data: bytes) -> Node:
    return Machine(Stream.over(data), lambda found: found).load()


def _archive(path: Path, body: bytes, **records: bytes) -> Path:
    return write(path, zip_bytes(pickle_of(body), {"data/0": bytes(16)} | {f"data/{k}": v for k, v in records.items()}))


@pytest.mark.parametrize("protocol", range(6))
def test_reads_what_every_protocol_writes(protocol: int) -> None:
    shared = ["shared"]
    value = [
        (None, True, False, 0, 255, 65535, -1, 2**31, -(2**80), 1.5, float("-inf")),
        ("", "naïve 😀", "x" * 300, "line\nbreak\\"),
        (b"", b"\x00\xff", b"y" * 300),
        ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)),
        shared,
        shared,
    ]
    assert _load(pickle.dumps(value, protocol)) == value
    found = _load(pickle.dumps({"a": {1: 2}, (1, 2): {"b"}}, protocol))
    assert isinstance(found, Pairs)
    assert [key for key, _ in found.items] == ["a", (1, 2)]
    assert found.items[1][1] == ["b"]


def test_reads_byte_arrays_and_frozen_sets() -> None:
    for protocol in range(6):
        assert _load(pickle.dumps(bytearray(b"\x00\xff"), protocol)) == b"\x00\xff"
        assert _load(pickle.dumps(frozenset([7]), protocol)) == [7]


def test_reads_the_strings_of_python_2_as_bytes() -> None:
    assert _load(b"U\x03abc.") == b"abc"
    assert _load(b"T\x03\x00\x00\x00\xff\x00a.") == b"\xff\x00a"
    assert _load(b"S'a\\x00\\n'\n.") == b"a\x00\n"
    assert _load(b"Va\\u00e9\n.") == "aé"
    assert _load(b"I01\n.") is True
    assert _load(b"L12L\n.") == 12


class _Plain:
    def __init__(self) -> None:
        self.value = 1


class _Slotted:
    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 1


class _Sequence(list):  # type: ignore[type-arg]
    pass


class _Mapping(dict):  # type: ignore[type-arg]
    pass


class _Called:
    def __init__(self, *args: object, **keywords: object) -> None: ...

    def __getnewargs_ex__(self) -> tuple[tuple[int], dict[str, int]]:
        return (1,), {"k": 2}


@pytest.mark.parametrize("protocol", range(6))
def test_keeps_objects_of_any_class_as_records(protocol: int) -> None:
    found = _load(
        pickle.dumps([_Plain(), _Slotted() if protocol > 1 else None, _Sequence([1]), _Mapping(a=2)], protocol)
    )
    assert isinstance(found, list)
    plain, slotted, sequence, mapped = found
    assert isinstance(plain, Opaque)
    assert str(plain) == f"{__name__}._Plain"
    assert isinstance(plain.state, Pairs)
    assert plain.state.items == [("value", 1)]
    assert slotted is None or slotted.name == "_Slotted"
    if protocol > 1:
        assert sequence.items == [1]
        assert mapped.entries == [("a", 2)]
    called = _load(pickle.dumps(_Called(), protocol)) if protocol > 3 else None
    assert called is None or (called.name, called.args[0]) == ("_Called", 1)


def test_runs_nothing_and_lists_what_would_have_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    class Attack:
        def __reduce__(self) -> object:
            return os.system, ("touch pwned-by-pickle",)

    assert RUN_COMMAND.startswith(b"cposix\nsystem\n")
    by_hand = {
        "kept": mapping(w=tensor(), x=RUN_COMMAND),
        "thrown away": RUN_COMMAND + b"0" + mapping(w=tensor()),
        "as a key": b"}(" + text("w") + tensor() + RUN_COMMAND + b"Nu",
        "in hooks": mapping(w=tensor(extra=RUN_COMMAND)),
        "by instance": b"(" + text("touch pwned-by-pickle") + b"iposix\nsystem\n0" + mapping(w=tensor()),
        "by object": b"(cposix\nsystem\n" + text("touch pwned-by-pickle") + b"o0" + mapping(w=tensor()),
        "by new object": b"cposix\nsystem\n" + b"(" + text("touch x") + b"t\x810" + mapping(w=tensor()),
        "from the stack": text("posix") + text("system") + b"\x93(" + text("touch x") + b"tR0" + mapping(w=tensor()),
        "by build": b"cposix\nsystem\n)R" + mapping(x=integer(1)) + b"b0" + mapping(w=tensor()),
        "as a callable": name("builtins", "getattr")
        + b"("
        + text("os")
        + text("system")
        + b"tR)R0"
        + mapping(w=tensor()),
    }
    for case, body in by_hand.items():
        contents = open_contents(_archive(tmp_path / "x.pth", body))
        assert isinstance(contents.root, Pairs)
        assert contents.root.items[0][0] == "w", case
        named = [str(value) for _, value in contents.opaque]
        assert "posix.system" in named or "builtins.getattr" in named, case
    for protocol in range(6):
        listed = pickle.dumps({"x": Attack()}, protocol)
        contents = open_contents(write(tmp_path / "x.pth", zip_bytes(listed)))
        assert [(at, str(value)) for at, value in contents.opaque] == [("x", "posix.system")]
    assert not (tmp_path / "pwned-by-pickle").exists()


def test_opaque_values_have_their_places() -> None:
    inner = b"cmod\nInner\n)R"
    body = pickle_of(
        mapping(args=b"cmod\nNamespace\n)\x81" + mapping(optimizer=b"](" + inner + b"e", lr=integer(1)) + b"b")
    )
    machine = Machine(Stream.over(body), lambda found: found)
    root = machine.load()
    assert [(at, str(value)) for at, value in list_opaque(root, machine.created)] == [
        ("args", "mod.Namespace"),
        ("args.optimizer[0]", "mod.Inner"),
    ]
