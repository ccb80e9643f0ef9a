"""Pickles that would run something: they are read, the tensors to the bit, each name listed, and nothing runs."""

from __future__ import annotations

import json
import math
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cli.running import spawn
from tests.formats.making import integers, mapping, name, pickle_of, storage, tensor, text
from tests.trust import record

from .archives import Entry, archive, deflated
from .deliveries import DELIVERIES, INDIRECT, arguments, in_protocol_0, pickled
from .harness import Server, Tally, breach_of, digests, listing, refusal_fault
from .malformed import legacy
from .payloads import PAYLOADS, split

LEAST = 230
CANARY = "canary"

DATA = struct.pack("<4f", 1.5, -2.0, math.inf, -0.0)
OTHER = struct.pack("<3h", -1, 2, 300)
EXPECTED = digests({"w": ("F32", [4], DATA), "v": ("I16", [3], OTHER)})
_V = tensor(storage("1", 3, "ShortStorage"), size=b"K\x03\x85", stride=b"K\x01\x85")


def state_dict(evil: bytes) -> bytes:
    """A mapping of two tensors with a value between them."""
    return mapping(w=tensor(), evil=evil, v=_V)


def as_zip(evil: bytes, *more: Entry) -> bytes:
    return archive([Entry(b"a/data.pkl", pickle_of(state_dict(evil))), *_storages(), *more])


def _storages() -> list[Entry]:
    return [Entry(b"a/data/0", DATA), Entry(b"a/data/1", OTHER)]


def as_legacy(evil: bytes) -> bytes:
    counts = struct.pack("<q", 4) + DATA + struct.pack("<q", 3) + OTHER
    return legacy.build(state_dict(evil), listed=legacy.keys("0", "1"), data=counts)


@dataclass(frozen=True)
class Attack:
    """A file, and a name that has to be among those that are listed."""

    name: str
    file: str
    data: bytes
    listed: str


_SYSTEM = name("os", "system") + arguments(("touch {canary}",), CANARY) + b"R"


def _names() -> Iterator[Attack]:
    """Each dangerous name once, delivered and contained in turn."""
    ways = ["GLOBAL and REDUCE", "STACK_GLOBAL and REDUCE", "INST", "OBJ", "NEWOBJ", "a result that is thrown away"]
    for number, (full, given) in enumerate(PAYLOADS.items()):
        module, attribute = split(full)
        way = ways[number % len(ways)]
        evil = DELIVERIES[way](module, attribute, arguments(given, CANARY))
        make = as_legacy if number % 3 == 2 else as_zip
        yield Attack(f"{full} by {way}", "x.pth", make(evil), full.replace("__builtin__", "builtins"))


def _ways() -> Iterator[Attack]:
    """Each way to call something, in both containers."""
    given = arguments(("touch {canary}",), CANARY)
    for way, deliver in DELIVERIES.items():
        evil = deliver("os", "system", given)
        listed = next((shown for start, shown in _LISTED.items() if way.startswith(start)), "os.system")
        yield Attack(f"{way}, zip", "x.pth", as_zip(evil), listed)
        yield Attack(f"{way}, legacy", "x.pt", as_legacy(evil), listed)
    for way, indirect in INDIRECT.items():
        yield Attack(f"{way}, zip", "x.pth", as_zip(indirect.opcodes), indirect.listed)
    for protocol in range(6):
        evil = pickled(os.system, f"touch {CANARY}", protocol=protocol)
        yield Attack(f"as Python pickles it, protocol {protocol}", "x.pth", as_zip(evil), "posix.system")
    evil = in_protocol_0("os", "system", f"touch {CANARY}")
    yield Attack("in opcodes of protocol 0", "x.pth", as_zip(evil), "os.system")


_LISTED = {
    "a nested pickle of _pickle": "_pickle.loads",
    "a nested pickle": "pickle.loads",
    "a nested file": "torch.storage._load_from_bytes",
    "a call of getattr": "builtins.getattr",
    "a call of methodcaller": "operator.methodcaller",
    "a call of attrgetter": "operator.attrgetter",
}
"""The ways that name something else than what they call in the end."""


def _places() -> Iterator[Attack]:
    """Each place in a container where something can stand."""
    evil = pickle_of(_SYSTEM)
    yield Attack(
        "the whole is an object around the tensors",
        "x.pth",
        archive(
            [
                Entry(b"a/data.pkl", pickle_of(name("evil", "Module") + b")R" + mapping(w=tensor(), v=_V) + b"b")),
                *_storages(),
            ]
        ),
        "evil.Module",
    )
    yield Attack("under a wrong extension", "x.safetensors", as_zip(_SYSTEM), "os.system")
    yield Attack("under no extension", "model", as_zip(_SYSTEM), "os.system")
    yield Attack(
        "deflated",
        "x.pth",
        archive(
            [
                deflated(b"a/data.pkl", pickle_of(state_dict(_SYSTEM))),
                *(deflated(e.name, e.data) for e in _storages()),
            ]
        ),
        "os.system",
    )
    yield Attack(
        "without checksums",
        "x.pth",
        archive(
            [
                Entry(e.name, e.data, {"crc": 0}, {"crc": 0})
                for e in [Entry(b"a/data.pkl", pickle_of(state_dict(_SYSTEM))), *_storages()]
            ]
        ),
        "os.system",
    )
    yield Attack(
        "in the system's pickle", "x.pt", _legacy_with(system=pickle_of(b"}" + text("x") + _SYSTEM + b"s")), "os.system"
    )
    yield Attack(
        "in a pickle of the keys",
        "x.pt",
        _legacy_with(listed=pickle_of(_SYSTEM + b"0](" + text("0") + text("1") + b"e")),
        "os.system",
    )
    yield Attack(
        "in the magic number's pickle",
        "x.pt",
        _legacy_with(magic=pickle_of(b"\x8a\x0a" + (0x1950A86A20F9469CFC6C).to_bytes(10, "little") + _SYSTEM + b"0")),
        "os.system",
    )
    yield Attack(
        "in the protocol's pickle", "x.pt", _legacy_with(protocol=pickle_of(_SYSTEM + b"0M\xe9\x03")), "os.system"
    )
    sound = mapping(w=tensor(), v=_V)
    for left, opcodes in {
        "a call": _SYSTEM,
        "a call under a MARK": _SYSTEM + b"(",
        "names": name("os", "system"),
    }.items():
        data = pickle_of(opcodes + sound)
        yield Attack(
            f"{left} left on the stack", "x.pth", archive([Entry(b"a/data.pkl", data), *_storages()]), "os.system"
        )
    for beside in ("data/evil.pkl", "evil.pkl", "code/__torch__.py", "extra/evil.bin", ".format_version"):
        # A record that nothing refers to is never looked into: it is as much as the file beside the file.
        yield Attack(
            f"a harmless pickle beside {beside}",
            "x.pth",
            archive(
                [
                    Entry(b"a/data.pkl", pickle_of(state_dict(name("os", "getcwd") + b")R"))),
                    *_storages(),
                    Entry(f"a/{beside}".encode(), evil),
                ]
            ),
            "os.getcwd",
        )


def _legacy_with(**parts: bytes) -> bytes:
    counts = struct.pack("<q", 4) + DATA + struct.pack("<q", 3) + OTHER
    given = {"listed": legacy.keys("0", "1"), "data": counts, **parts}
    return legacy.build(mapping(w=tensor(), v=_V), **given)


def _many() -> Iterator[Attack]:
    """As much as a pickle may hold of one kind, beside sound tensors."""
    call = name("os", "system") + b"q\x500h\x50" + arguments(("true",), CANARY) + b"R"
    again = b"h\x50(" + text("true") + b"tR"
    yield Attack("forty thousand calls", "x.pth", as_zip(b"](" + call + again * 40_000 + b"e"), "os.system")
    yield Attack("sixty thousand names", "x.pth", as_zip(b"](" + b"cos\nsystem\n" * 60_000 + b"e"), "os.system")
    yield Attack(
        "thirty thousand different names",
        "x.pth",
        as_zip(b"](" + b"".join(f"cm\nf{n}\n)R".encode() for n in range(30_000)) + b"e" + _SYSTEM + b"\x86"),
        "os.system",
    )
    deep = b"".join(text("k" * 40)[:-2] + b"%02d" % n + b"}" for n in range(60))
    yield Attack(
        "forty thousand calls in a deep place",
        "x.pth",
        as_zip(b"}" + deep + text("x") + b"](" + call + again * 40_000 + b"es" + b"s" * 60),
        "os.system",
    )
    yield Attack(
        "a hundred and fifty thousand lists", "x.pth", as_zip(b"](" + _SYSTEM + b"]" * 150_000 + b"e"), "os.system"
    )
    yield Attack(
        "a key that would take for ever to hash", "x.pth", as_zip(b"}" + _shared(b"(", b"t") + b"Ns"), "os.system"
    )
    yield Attack(
        "bytes of six gigabytes by call",
        "x.pth",
        as_zip(
            name("builtins", "bytearray")
            + b"\x8a\x05"
            + (6 * 10**9).to_bytes(5, "little")
            + b"\x85R"
            + _SYSTEM
            + b"\x86"
        ),
        "os.system",
    )
    yield Attack(
        "a range of 10^18 by call",
        "x.pth",
        as_zip(
            name("builtins", "list")
            + name("builtins", "range")
            + b"\x8a\x08"
            + (10**18).to_bytes(8, "little")
            + b"\x85R\x85R"
            + _SYSTEM
            + b"\x86"
        ),
        "os.system",
    )


def _shared(opening: bytes, closing: bytes) -> bytes:
    """A container of two of the same container of two ..., 200 times: 2^200 leaves."""
    return _SYSTEM + (b"q\x600" + opening + b"h\x60h\x60" + closing) * 200


_GROUPS: dict[str, Callable[[], Iterator[Attack]]] = {"names": _names, "ways": _ways, "places": _places, "many": _many}


@pytest.mark.parametrize("group", _GROUPS)
def test_is_read_and_nothing_runs(group: str, server: Server, tmp_path: Path) -> None:
    tally = Tally()
    for attack in _GROUPS[group]():
        folder = tmp_path / str(tally.inputs)
        folder.mkdir()
        path = folder / attack.file
        path.write_bytes(attack.data)
        before = listing(folder)
        tasks = (
            ["ckptfix", "inspect", str(path)],
            ["ckptfix", "inspect", str(path), "--security", "--json"],
            ["read", str(path)],
        )
        # What is large is measured one by one.
        outcomes = [server.run(folder, task) for task in tasks] if group == "many" else [server.run(folder, *tasks)]
        outcome = max(outcomes, key=lambda one: (one.status, one.cpu))
        fault = breach_of(outcome)
        if fault is None and outcome.status:
            fault = f"it ended with {outcome.status}: {outcome.err[:300]}"
        if fault is None:
            security, read = (document for one in outcomes for document in one.documents())
            names = {one["name"] for one in security["opaque"]}
            if attack.listed not in names:
                fault = f"{attack.listed} is not among {sorted(names)}"
            elif read != EXPECTED:
                fault = f"other tensors: {read}"
            elif listing(folder) != before:
                fault = "it left something in its folder"
        tally.add(attack.name, outcome, fault)
        shutil.rmtree(folder)
    record(f"attacks-malicious-{group}", **tally.numbers())
    assert not tally.faults, "\n".join(tally.faults)


_VICTIM = """
import json, os, pickle, sys

class Victim(pickle._Unpickler):
    def persistent_load(self, given):
        return given[1]

for number, data in enumerate(json.load(sys.stdin)):
    os.mkdir(str(number))
    pid = os.fork()
    if pid == 0:
        os.chdir(str(number))
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(1, 2)
        try:
            import io
            Victim(io.BytesIO(bytes.fromhex(data)), fix_imports=True, encoding="latin1").load()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
"""

_OF_CLASSES = {
    "NEWOBJ",
    "NEWOBJ_EX",
    "copyreg.__newobj__",
    "copyreg.__newobj_ex__",
    "copyreg._reconstructor",
    "copy_reg of Python 2",
}
_OF_TWO = {"a call of reduce"}
_OF_OLD = {"a call of apply"}
"""What takes a class, two arguments, or Python 2 to act. All the others do what they are made for with `os.system`."""

_SLOW = "a nested file of torch"
"""It imports torch first."""


def test_the_ways_are_real(tmp_path: Path) -> None:
    given = arguments(("touch {canary}",), CANARY)
    pickles = {way: b"\x80\x04" + deliver("os", "system", given) + b"." for way, deliver in DELIVERIES.items()}
    del pickles[_SLOW]
    subprocess.run(
        [sys.executable, "-c", _VICTIM],
        input=json.dumps([data.hex() for data in pickles.values()]),
        cwd=tmp_path,
        check=True,
        text=True,
        timeout=60,
    )
    idle = {way for number, way in enumerate(pickles) if not (tmp_path / str(number) / CANARY).exists()}
    assert idle == _OF_CLASSES | _OF_TWO | _OF_OLD


def test_there_are_enough_and_no_two_are_called_alike() -> None:
    names = [attack.name for make in _GROUPS.values() for attack in make()]
    assert len(names) >= LEAST
    assert len(set(names)) == len(names)


def test_a_view_of_10_to_the_12_elements_is_shown_and_not_unfolded(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    view = tensor(size=integers(10**12), stride=integers(0))
    path.write_bytes(archive([Entry(b"a/data.pkl", pickle_of(mapping(w=view))), Entry(b"a/data/0", DATA)]))
    shown = server.run(tmp_path, ["ckptfix", "inspect", str(path), "--json"])
    assert breach_of(shown) is None
    assert shown.document()["tensors"]["w"]["shape"] == [10**12]
    assert refusal_fault(server.run(tmp_path, ["read", str(path)])) is None
    adapted = spawn("adapt", path, f"shapes:{path}", "-o", tmp_path / "out.safetensors")
    assert (adapted.returncode, adapted.stdout) == (2, "")
    assert "the output takes 4,000,000,000,000 bytes" in adapted.stderr
    assert not (tmp_path / "out.safetensors").exists()
