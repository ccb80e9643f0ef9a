"""The memo of a pickle keeps what the pickle can ask for, and nothing else has to be kept."""

from __future__ import annotations

import pickle
import pickletools
from collections import OrderedDict

import pytest

from ckptfix.errors import CkptfixError, MalformedFile, UnknownFormat
from ckptfix.formats.base import Node, Opaque, Pairs
from ckptfix.formats.distributed.metadata import read_metadata
from ckptfix.formats.pickle.machine import Machine
from ckptfix.formats.pickle.stream import Stream

VALUE = {
    "text": ["short", "long" * 200, "ä"],
    "numbers": (0, 255, 65_535, -1, 1 << 31, 1.5, True, None),
    "tuples": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)],
    "twice": [shared := [1], shared],
    "ordered": OrderedDict(a=1, b=(2, 3)),
    "many": [{"key": (n, f"name.{n}")} for n in range(400)],
}
PICKLES = [pickle.dumps(VALUE, protocol) for protocol in range(6)]


def plain(node: Node) -> object:
    """Give a value in a form that can be compared."""
    if isinstance(node, Pairs):
        return {"pairs": [(plain(key), plain(value)) for key, value in node.items]}
    if isinstance(node, Opaque):
        return {"record": str(node), "args": plain(node.args), "state": plain(node.state)}
    return [type(node).__name__, *map(plain, node)] if isinstance(node, list | tuple) else node


def machine_of(data: bytes) -> Machine:
    """Read without a look at what follows, so that all is kept."""
    return Machine(Stream(lambda at, length: data[at : at + length], 0, len(data)), lambda found: found)


@pytest.mark.parametrize("data", PICKLES)
def test_a_memo_of_what_is_asked_for_gives_the_same_value(data: bytes) -> None:
    kept = Machine(Stream.over(data), lambda found: found)
    whole = machine_of(data)
    assert plain(kept.load()) == plain(whole.load())
    asked = {arg for opcode, arg, _ in pickletools.genops(data) if opcode.name in ("GET", "BINGET", "LONG_BINGET")}
    assert asked <= kept.memo.keys() <= whole.memo.keys()


def test_what_nothing_asks_for_is_not_kept() -> None:
    data = pickle.dumps([(str(n), n) for n in range(5_000)], 4)
    machine = Machine(Stream.over(data), lambda found: found)
    machine.load()
    assert len(machine.memo) < 500


def test_numbers_may_be_given_out_of_order() -> None:
    # 5 is given first, then 0; MEMOIZE counts two and gives 2.
    data = b"\x80\x04](K\x07q\x05K\x08q\x00K\x09\x94h\x05h\x00h\x02e."
    assert pickle.loads(data) == [7, 8, 9, 7, 8, 9]
    assert Machine(Stream.over(data), lambda found: found).load() == [7, 8, 9, 7, 8, 9]


@pytest.mark.parametrize("data", PICKLES)
def test_every_cut_is_refused(data: bytes) -> None:
    for length in {*range(0, len(data), max(1, len(data) // 60)), len(data) - 1}:
        with pytest.raises(CkptfixError):
            Machine(Stream.over(data[:length]), lambda found: found).load()


def test_a_value_of_the_metadata_is_built_once() -> None:
    index = b"ctorch.distributed.checkpoint.metadata\nMetadataIndex\n)\x81}(X\x03\x00\x00\x00fqnX\x01\x00\x00\x00aub"
    with pytest.raises(UnknownFormat, match="not the metadata"):
        read_metadata(b"\x80\x02" + index + b".", 0)
    again = index + b"}(X\x03\x00\x00\x00fqnX\x01\x00\x00\x00bub"
    with pytest.raises(MalformedFile, match="the state of a value twice"):
        read_metadata(b"\x80\x02" + again + b".", 0)
