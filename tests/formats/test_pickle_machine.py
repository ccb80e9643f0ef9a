"""The inert machine: every opcode, nothing executed, and no pickle that costs more than it should."""

from __future__ import annotations

import os
import pickle
import resource
import struct
import time
from pathlib import Path

import pytest

from ckptfix.errors import LimitExceeded, MalformedFile, RefusedContent, TruncatedFile
from ckptfix.formats import Opaque, Pairs, open_checkpoint, open_contents
from ckptfix.formats.base import Node
from ckptfix.formats.pickle import Machine, Stream, limits, list_opaque

from .making import (
    RUN_COMMAND,
    integer,
    integers,
    mapping,
    name,
    pickle_of,
    storage,
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


_BAD_TENSORS = {
    "negative offset": (tensor(offset=-1), MalformedFile, "negative or non-integer offset"),
    "huge offset": (tensor(offset=2**64), MalformedFile, "negative or non-integer offset"),
    "offset beyond": (tensor(offset=1), MalformedFile, r"F32 \[4\] ends at element 5 of a storage of 4"),
    "negative extent": (tensor(size=integers(-4)), MalformedFile, "not a list of integers"),
    "extent true": (tensor(size=b"\x88\x85"), MalformedFile, "not a list of integers"),
    "extent a float": (tensor(size=b"G" + bytes(8) + b"\x85"), MalformedFile, "not a list of integers"),
    "size a number": (tensor(size=integer(4)), MalformedFile, "not a list of integers"),
    "size beyond": (tensor(size=integers(5)), MalformedFile, "ends at element 5"),
    "size overflows": (tensor(size=integers(2**40, 2**40), stride=integers(0, 0)), LimitExceeded, "more elements"),
    "size overflows, empty": (
        tensor(size=integers(0, 2**62, 2**62), stride=integers(1, 1, 1)),
        LimitExceeded,
        "more elements",
    ),
    "negative stride": (tensor(stride=integers(-1)), MalformedFile, "negative or non-integer stride"),
    "huge stride": (tensor(stride=integers(2**63)), MalformedFile, "negative or non-integer stride"),
    "stride beyond": (tensor(stride=integers(2)), MalformedFile, "ends at element 7"),
    "stride missing": (tensor(stride=b")"), MalformedFile, "stride for some axes only"),
    "rank 65": (tensor(size=integers(*[1] * 65), stride=integers(*[1] * 65)), LimitExceeded, "65 axes"),
    "no storage": (tensor(of=integer(3)), MalformedFile, "something other than a storage"),
    "too few": (name("torch._utils", "_rebuild_tensor_v2") + b")R", MalformedFile, "something other than a storage"),
    "storage of a number": (tensor(of=integer(3) + b"Q"), MalformedFile, "persistent id is not a tuple"),
    "storage of a kind": (tensor(of=storage(kind="DiskStorage")), MalformedFile, "unknown class torch.DiskStorage"),
    "storage negative": (tensor(of=storage(numel=-1)), MalformedFile, "no possible number of elements"),
    "storage overflows": (tensor(of=storage(numel=2**62)), MalformedFile, "no possible number of elements"),
    "storage too long": (tensor(of=storage(numel=5)), MalformedFile, "takes 20 bytes, its entry in the archive has 16"),
    "storage lacks": (tensor(of=storage(key="9")), MalformedFile, "uses storage '9', the archive lacks it"),
    "storage climbs": (tensor(of=storage(key="../data.pkl")), MalformedFile, "the archive lacks it"),
    "id of another kind": (b"(" + text("tensor") + text("0") + b"tQ", MalformedFile, "does not name a storage"),
    "id as text": (b"P0\n", MalformedFile, "persistent id is not a tuple"),
}


@pytest.mark.parametrize("case", _BAD_TENSORS)
def test_refuses_impossible_tensors(case: str, tmp_path: Path) -> None:
    body, error, message = _BAD_TENSORS[case]
    with pytest.raises(error, match=message) as caught:
        open_contents(_archive(tmp_path / "x.pth", mapping(w=body)))
    assert "\n" not in str(caught.value)


def test_refuses_one_storage_with_two_dtypes(tmp_path: Path) -> None:
    half = tensor(of=storage(kind="HalfStorage", numel=8), size=integers(8))
    with pytest.raises(MalformedFile, match="used as FloatStorage of 4 and as HalfStorage of 8"):
        open_contents(_archive(tmp_path / "x.pth", mapping(a=tensor(), b=half)))


def test_an_unknown_dtype_stays_a_record(tmp_path: Path) -> None:
    args = storage(kind="UntypedStorage", numel=16) + integer(0) + integers(4) + integers(1) + b"\x89N"
    body = name("torch._utils", "_rebuild_tensor_v3") + b"(" + args + name("torch", "complex32") + b"tR"
    checkpoint = open_checkpoint(
        _archive(tmp_path / "x.pth", mapping(a=tensor(of=storage("1")), b=body), **{"1": bytes(16)})
    )
    assert list(checkpoint.tensors) == ["a"]
    assert checkpoint.ignored == ("b",)


_BROKEN = {
    "empty": (b"", TruncatedFile, "before its STOP"),
    "no stop": (b"\x80\x02N", TruncatedFile, "before its STOP"),
    "no line end": (b"I12", TruncatedFile, "ends inside a line"),
    "not a pickle": (b"\xffabc", MalformedFile, "unknown opcode, 0xff"),
    "nothing left": (b"\x80\x02.", MalformedFile, "empty stack"),
    "two left": (b"NN.", MalformedFile, "leaves values"),
    "open mark": (b"(N.", MalformedFile, "leaves values"),
    "no mark": (b"Nt.", MalformedFile, "lacks a MARK"),
    "below the mark": (b"N(R.", MalformedFile, "empty stack"),
    "tuple below the mark": (b"NN(N\x86.", MalformedFile, "empty stack"),
    "pop nothing": (b"0.", MalformedFile, "lacks a MARK"),
    "dup nothing": (b"2.", MalformedFile, "empty stack"),
    "no such memo": (b"h\x00.", MalformedFile, "asks for memo 0"),
    "append to a number": (b"K\x01Na.", MalformedFile, "appends to int"),
    "append to a tuple": (b")Na.", MalformedFile, "appends to tuple"),
    "key of a number": (b"K\x01NNs.", MalformedFile, "sets a key of int"),
    "key without value": (b"}(Nu.", MalformedFile, "key without a value"),
    "dict of one": (b"(Nd.", MalformedFile, "key without a value"),
    "call of a number": (b"K\x01)R.", MalformedFile, "cannot be called, int"),
    "call with a list": (b"cos\nsystem\n]R.", MalformedFile, "arguments that are no tuple"),
    "keywords with a list": (b"cos\nsystem\n]}\x92.", MalformedFile, "arguments that are no tuple"),
    "object without class": (b"(o.", MalformedFile, "without a class"),
    "global of numbers": (b"NN\x93.", MalformedFile, "something other than text"),
    "global not utf-8": (b"c\xff\nx\n.", MalformedFile, "not utf-8"),
    "state twice": (b"cm\nC\n)RK\x01bK\x02b.", MalformedFile, "twice"),
    "text not utf-8": (b"X\x01\x00\x00\x00\xff.", MalformedFile, "not utf-8"),
    "string without quotes": (b"Sabc\n.", MalformedFile, "without its quotes"),
    "string with half an escape": (b"S'\\x0'\n.", MalformedFile, "broken escape"),
    "text with half an escape": (b"V\\u00\n.", MalformedFile, "not raw-unicode-escape"),
    "number is none": (b"Iabc\n.", MalformedFile, "a number that is none"),
    "float is none": (b"Fabc\n.", MalformedFile, "a number that is none"),
    "newer protocol": (b"\x80\x06N.", MalformedFile, "newer than 5"),
    "out of band": (b"\x97.", MalformedFile, "buffer outside"),
    "text longer than the file": (b"X\xff\xff\x00\x00abc.", TruncatedFile, "before its STOP"),
    "byte array of a terabyte": (b"\x96" + struct.pack("<Q", 1 << 40) + b".", LimitExceeded, "argument of"),
    "text of an exabyte": (b"\x8d" + struct.pack("<Q", 1 << 62) + b".", LimitExceeded, "argument of"),
    "long integer": (b"\x8b" + struct.pack("<L", 100_000) + bytes(100_000) + b".", LimitExceeded, "integer of 100000"),
    "long digits": (b"L" + b"9" * 10_000 + b"\n.", LimitExceeded, "10000 digits"),
    "long line": (b"V" + b"a" * (limits.LINE * 5) + b"\n.", LimitExceeded, "a line of more than"),
    "long name": (b"c" + b"a" * 2000 + b"\nx\n.", LimitExceeded, "a global of"),
    "two million marks": (b"(" * 2_000_000 + b".", LimitExceeded, "marks"),
}


@pytest.mark.parametrize("case", _BROKEN)
def test_refuses_broken_pickles(case: str) -> None:
    data, error, message = _BROKEN[case]
    start = time.perf_counter()
    with pytest.raises(error, match=message):
        _load(data)
    assert time.perf_counter() - start < 2


_DEEP = 500_000

_BOMBS = {
    "deep lists": b"]" * _DEEP + b"a" * (_DEEP - 1),
    "deep tuples": b")" + b"\x85" * _DEEP,
    "deep dicts": b"}" + b"".join([b"N}"] * _DEEP) + b"s" * _DEEP,
    "deep records": b"cm\nC\n" + b")R" * 0 + b"".join([b"cm\nC\n)R"] * 2_000) + b"b" * 2_000,
}


@pytest.mark.parametrize("case", _BOMBS)
def test_refuses_deep_nesting_without_recursing(case: str, tmp_path: Path) -> None:
    with pytest.raises(LimitExceeded, match="containers deep"):
        open_contents(_archive(tmp_path / "x.pth", mapping(w=tensor(), x=_BOMBS[case])))


def _doubled(levels: int) -> bytes:
    """A list of two of the list of two of ...: 2^levels leaves in a few bytes."""
    return b"]" + b"".join(b"q\x01" + b"](h\x01h\x01e" for _ in range(levels)).replace(b"q\x01](h", b"q\x010](h")


def test_visits_shared_values_once(tmp_path: Path) -> None:
    start = time.perf_counter()
    checkpoint = open_checkpoint(_archive(tmp_path / "x.pth", mapping(model=mapping(w=tensor()), bomb=_doubled(200))))
    assert list(checkpoint.tensors) == ["w"]
    assert time.perf_counter() - start < 1


def test_long_keys_of_a_deep_nest_are_not_joined(tmp_path: Path) -> None:
    # One key of a megabyte, shared by 900 mappings inside one another: joined it would be 400 GB.
    key = text("k" * (1 << 20)) + b"q\x00" + b"0"
    nest = b"}" + b"h\x00}" * 900 + b"h\x00cm\nC\n)R" + b"s" * 901
    body = key + b"}" + text("w") + tensor() + b"s" + text("x") + nest + b"s"
    start = time.perf_counter()
    contents = open_contents(_archive(tmp_path / "x.pth", body))
    assert [str(value) for _, value in contents.opaque] == ["m.C"]
    assert len(contents.opaque[0][0]) < 2000
    assert contents.opaque[0][0].startswith("…")
    with pytest.raises(LimitExceeded, match="a key is longer than"):
        open_checkpoint(tmp_path / "x.pth")
    body = key + b"}" + text("x") + nest + b"s"
    with pytest.raises(RefusedContent, match="holds no state dict"):
        open_checkpoint(_archive(tmp_path / "x.pth", body))
    assert time.perf_counter() - start < 2


def test_refuses_mappings_that_unfold_without_end(tmp_path: Path) -> None:
    # Inside a state dict a shared mapping counts under each of its keys, so a shared graph of them is a bomb.
    levels = b"".join(b"q\x010}(" + text("a") + b"h\x01" + text("b") + b"h\x01u" for _ in range(40))
    body = mapping(w=tensor(), bomb=mapping(v=tensor()) + levels)
    start = time.perf_counter()
    with pytest.raises(RefusedContent, match="unfold into more than"):
        open_checkpoint(_archive(tmp_path / "x.pth", body))
    assert time.perf_counter() - start < 60


def test_never_hashes_a_key(tmp_path: Path) -> None:
    # Keys that Python cannot hash, or that would take for ever to hash.
    body = b"}(" + b"]N" + b"}N" + _doubled(100) + b"N" + text("w") + b"Nu"
    contents = open_contents(_archive(tmp_path / "x.pth", body))
    assert isinstance(contents.root, Pairs)
    assert len(contents.root.items) == 4


def test_a_value_may_contain_itself(tmp_path: Path) -> None:
    body = b"}q\x01(" + text("w") + tensor() + text("self") + b"h\x01" + text("list") + b"]q\x02h\x02au"
    checkpoint = open_checkpoint(_archive(tmp_path / "x.pth", body))
    assert list(checkpoint.tensors) == ["w"]
    assert list(open_checkpoint(tmp_path / "x.pth", select=".").tensors) == ["w"]


@pytest.mark.parametrize(
    "call",
    [
        name("builtins", "bytearray") + integer(10**12) + b"\x85R",
        name("builtins", "bytes") + integer(10**12) + b"\x85R",
        name("builtins", "complex") + text("1" * 10) + b"\x85R",
        name("builtins", "list") + integer(10**12) + b"\x85R",
        name("builtins", "range") + integer(10**12) + b"\x85R",
        name("_codecs", "encode") + b"(" + text("00") + text("hex") + b"tR",
    ],
)
def test_known_constructors_never_allocate_what_they_are_told(call: bytes, tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    checkpoint = open_checkpoint(_archive(tmp_path / "x.pth", mapping(w=tensor(), x=call)))
    assert checkpoint.ignored == ("x",)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000
