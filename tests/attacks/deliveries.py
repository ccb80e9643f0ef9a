"""The ways in which a pickle can come to call something: each a value that is put beside sound tensors."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable
from dataclasses import dataclass

from tests.formats.making import integer, name, text

Delivery = Callable[[str, str, bytes], bytes]
"""module, name and the pickled tuple of arguments -> opcodes that push one value."""


def arguments(values: tuple[object, ...], canary: str) -> bytes:
    """Write a tuple of plain values as opcodes."""
    return b"(" + b"".join(_plain(value, canary) for value in values) + b"t"


def _plain(value: object, canary: str) -> bytes:
    match value:
        case str():
            return text(value.format(canary=canary))
        case bytes():
            return b"C" + bytes([len(value)]) + value
        case int():
            return integer(value)
        case list():
            return b"](" + b"".join(_plain(item, canary) for item in value) + b"e"
    raise AssertionError(value)


def _short(value: str) -> bytes:
    return b"\x8c" + bytes([len(value)]) + value.encode()


def stack_global(module: str, attribute: str) -> bytes:
    """The name from two texts on the stack (protocol 4)."""
    return _short(module) + _short(attribute) + b"\x93"


_FILLER = b"".join(text(f"filler{n}") + b"q" + bytes([100 + n]) + b"0" for n in range(20))

DELIVERIES: dict[str, Delivery] = {
    "GLOBAL and REDUCE": lambda m, n, a: name(m, n) + a + b"R",
    "STACK_GLOBAL and REDUCE": lambda m, n, a: stack_global(m, n) + a + b"R",
    "STACK_GLOBAL of memoised texts": lambda m, n, a: (
        _short(m) + b"q\x500" + _short(n) + b"q\x510h\x50h\x51\x93" + a + b"R"
    ),
    "STACK_GLOBAL of MEMOIZEd texts": lambda m, n, a: _short(m) + b"\x94" + _short(n) + b"\x94" + b"\x93" + a + b"R",
    "STACK_GLOBAL of texts of other widths": lambda m, n, a: (
        b"\x8d" + struct.pack("<Q", len(m)) + m.encode() + text(n) + b"\x93" + a + b"R"
    ),
    "STACK_GLOBAL of lines": lambda m, n, a: f"V{m}\nV{n}\n".encode() + b"\x93" + a + b"R",
    "STACK_GLOBAL of escaped lines": lambda m, n, a: (
        b"V" + "".join(f"\\u{ord(c):04x}" for c in m).encode() + b"\nV" + n.encode() + b"\n\x93" + a + b"R"
    ),
    "STACK_GLOBAL far from its texts": lambda m, n, a: _short(m) + _short(n) + _FILLER + b"\x93" + a + b"R",
    "STACK_GLOBAL of duplicated texts": lambda m, n, a: _short(m) + b"20" + _short(n) + b"20\x93" + a + b"R",
    "STACK_GLOBAL through a tuple": lambda m, n, a: (
        _short(m) + b"\x85q\x500" + _short(m) + _short(n) + b"\x93" + a + b"R"
    ),
    "the name from the memo": lambda m, n, a: name(m, n) + b"q\x500h\x50" + a + b"R",
    "the name from a line's memo": lambda m, n, a: name(m, n) + b"p80\n0g80\n" + a + b"R",
    "the name from a long memo": lambda m, n, a: name(m, n) + b"r\x50\1\0\0000j\x50\1\0\0" + a + b"R",
    "the arguments from the memo": lambda m, n, a: a + b"q\x500" + name(m, n) + b"h\x50R",
    "INST": lambda m, n, a: a[:-1] + f"i{m}\n{n}\n".encode(),
    "OBJ": lambda m, n, a: b"(" + name(m, n) + a[1:-1] + b"o",
    "OBJ with STACK_GLOBAL": lambda m, n, a: b"(" + stack_global(m, n) + a[1:-1] + b"o",
    "NEWOBJ": lambda m, n, a: name(m, n) + a + b"\x81",
    "NEWOBJ_EX": lambda m, n, a: name(m, n) + a + b"}\x92",
    "BUILD of what it gives": lambda m, n, a: name(m, n) + a + b"R}" + text("x") + b"Nsb",
    "BUILD with a state": lambda m, n, a: (
        name("types", "SimpleNamespace") + b")R}" + text("x") + name(m, n) + a + b"Rsb"
    ),
    "BUILD that sets __setstate__": lambda m, n, a: (
        name("types", "SimpleNamespace") + b")\x81}" + text("__setstate__") + name(m, n) + b"sb" + a[1:-1] + b"b"
    ),
    "BUILD that sets __reduce__": lambda m, n, a: (
        name("types", "SimpleNamespace") + b")\x81}" + text("__reduce__") + name(m, n) + a + b"Rsb"
    ),
    "APPEND to an object": lambda m, n, a: name("collections", "deque") + b")R" + name(m, n) + a + b"Ra",
    "APPENDS to an object": lambda m, n, a: name("collections", "deque") + b")R(" + name(m, n) + a + b"Re",
    "SETITEM of an object": lambda m, n, a: (
        name("collections", "UserDict") + b")R" + text("k") + name(m, n) + a + b"Rs"
    ),
    "SETITEMS of an object": lambda m, n, a: (
        name("collections", "UserDict") + b")R(" + text("k") + name(m, n) + a + b"Ru"
    ),
    "ADDITEMS to a set": lambda m, n, a: b"\x8f(" + name(m, n) + a + b"R\x90",
    "a FROZENSET": lambda m, n, a: b"(" + name(m, n) + a + b"R\x91",
    "a key": lambda m, n, a: b"}" + name(m, n) + a + b"RNs",
    "an element of a tuple": lambda m, n, a: name(m, n) + a + b"R\x85",
    "an element of a list": lambda m, n, a: b"(" + name(m, n) + a + b"Rl",
    "a result that is thrown away": lambda m, n, a: name(m, n) + a + b"R0N",
    "a result that a MARK throws away": lambda m, n, a: b"(" + name(m, n) + a + b"R1N",
    "a result under a MARK that POP takes": lambda m, n, a: b"(" + name(m, n) + a + b"R00N",
    "a result that is only in the memo": lambda m, n, a: name(m, n) + a + b"Rq\x500N",
    "a result that an object's argument is": lambda m, n, a: name("collections", "deque") + name(m, n) + a + b"R\x85R",
    "an argument of a tensor's hooks": lambda m, n, a: (
        name("collections", "OrderedDict") + b")R}" + text("h") + name(m, n) + a + b"Rsb"
    ),
    "a call of getattr": lambda m, n, a: (
        name("builtins", "getattr")
        + name("importlib", "import_module")
        + text(m)
        + b"\x85R"
        + text(n)
        + b"\x86R"
        + a
        + b"R"
    ),
    "a call of __import__": lambda m, n, a: (
        name("builtins", "__import__") + text(m) + b"\x85R0" + name(m, n) + a + b"R"
    ),
    "a call of methodcaller": lambda m, n, a: (
        name("operator", "methodcaller")
        + text(n)
        + a[1:-1]
        + b"\x86R"
        + name("builtins", "__import__")
        + text(m)
        + b"\x85R\x85R"
    ),
    "a call of attrgetter": lambda m, n, a: (
        name("operator", "attrgetter")
        + text(n)
        + b"\x85R"
        + name("builtins", "__import__")
        + text(m)
        + b"\x85R\x85R"
        + a
        + b"R"
    ),
    "a call of partial": lambda m, n, a: name("functools", "partial") + b"(" + name(m, n) + a[1:-1] + b"tR)R",
    "a call of reduce": lambda m, n, a: name("functools", "reduce") + name(m, n) + a + b"\x86R",
    "a call of map": lambda m, n, a: (
        name("builtins", "list") + name("builtins", "map") + name(m, n) + a + b"\x86R\x85R"
    ),
    "a call of starmap": lambda m, n, a: (
        name("builtins", "list") + name("itertools", "starmap") + name(m, n) + b"](" + a + b"e\x86R\x85R"
    ),
    "a call of apply": lambda m, n, a: name("__builtin__", "apply") + name(m, n) + a + b"\x86R",
    "copyreg.__newobj__": lambda m, n, a: name("copyreg", "__newobj__") + b"(" + name(m, n) + a[1:] + b"R",
    "copyreg.__newobj_ex__": lambda m, n, a: name("copyreg", "__newobj_ex__") + b"(" + name(m, n) + a + b"}tR",
    "copyreg._reconstructor": lambda m, n, a: (
        name("copyreg", "_reconstructor") + name(m, n) + name("builtins", "object") + b"N\x87R" + a + b"R"
    ),
    "copy_reg of Python 2": lambda m, n, a: name("copy_reg", "__newobj__") + b"(" + name(m, n) + a[1:] + b"R",
    "a nested pickle": lambda m, n, a: _call("pickle", "loads", _nest(m, n, a)),
    "a nested pickle of _pickle": lambda m, n, a: _call("_pickle", "loads", _nest(m, n, a)),
    "a nested file of torch": lambda m, n, a: _call("torch.storage", "_load_from_bytes", _nest(m, n, a)),
    "a nested pickle in protocol 0": lambda m, n, a: (
        name("pickle", "loads")
        + name("_codecs", "encode")
        + text(_nest(m, n, a).decode("latin1"))
        + text("latin1")
        + b"\x86R\x85R"
    ),
    "a module's class with its source": lambda m, n, a: (
        b"(" + text("module") + name(m, n) + text("x.py") + text("x=1") + b"tQ" + a + b"R"
    ),
    "in a parameter": lambda m, n, a: name("torch._utils", "_rebuild_parameter") + name(m, n) + a + b"R\x89N\x87R",
    "in a tensor's subclass": lambda m, n, a: (
        name("torch._tensor", "_rebuild_from_type_v2") + b"(" + name(m, n) + name("torch", "Tensor") + a + b"}tR"
    ),
    "in a frame": lambda m, n, a: b"\x95" + struct.pack("<Q", len(name(m, n) + a) + 1) + name(m, n) + a + b"R",
    "after another protocol's opcode": lambda m, n, a: b"\x80\x05" + name(m, n) + a + b"R",
    "after many others": lambda m, n, a: (
        b"](" + (name("collections", "OrderedDict") + b")R") * 200 + name(m, n) + a + b"Re"
    ),
    "called twice": lambda m, n, a: b"](" + (name(m, n) + a + b"R") * 2 + b"e",
    "called, and what it gives called too": lambda m, n, a: name(m, n) + a + b"R)R",
}
"""The way -> its opcodes. All name what they call in plain sight of whoever follows the stack."""


def _nest(module: str, attribute: str, packed: bytes) -> bytes:
    return b"\x80\x02" + name(module, attribute) + packed + b"R."


def _call(module: str, attribute: str, data: bytes) -> bytes:
    return name(module, attribute) + b"B" + struct.pack("<I", len(data)) + data + b"\x85R"


@dataclass(frozen=True)
class Indirect:
    """A delivery whose target is not named in the stream, and what is listed in its place."""

    opcodes: bytes
    listed: str


INDIRECT: dict[str, Indirect] = {
    "EXT1": Indirect(b"\x82\x05)R", "copyreg.extension.5"),
    "EXT2": Indirect(b"\x83\x05\x01)R", "copyreg.extension.261"),
    "EXT4": Indirect(b"\x84\x05\x00\x01\x00)R", "copyreg.extension.65541"),
    "a name with dots": Indirect(name("os", "path.os.system") + text("true") + b"\x85R", "os.path.os.system"),
    "a name that is a method": Indirect(
        name("builtins", "eval.__call__") + text("1") + b"\x85R", "builtins.eval.__call__"
    ),
    "a name with letters that look alike": Indirect(
        "c\N{CYRILLIC SMALL LETTER O}s\nsystem\n".encode() + text("true") + b"\x85R",
        "\N{CYRILLIC SMALL LETTER O}s.system",
    ),
    "a name in full width": Indirect(
        "c\N{FULLWIDTH LATIN SMALL LETTER O}\N{FULLWIDTH LATIN SMALL LETTER S}\nsystem\n".encode()
        + text("true")
        + b"\x85R",
        "\N{FULLWIDTH LATIN SMALL LETTER O}\N{FULLWIDTH LATIN SMALL LETTER S}.system",
    ),
    "a name with blanks": Indirect(b"c os \nsystem\n" + text("true") + b"\x85R", " os .system"),
    "an empty module": Indirect(b"c\neval\n" + text("1") + b"\x85R", ".eval"),
    "an empty name": Indirect(b"cos\n\n" + text("1") + b"\x85R", "os."),
    "a module like torch's": Indirect(
        name("torchevil", "FloatStorage") + text("1") + b"\x85R", "torchevil.FloatStorage"
    ),
    "a module that ends like torch": Indirect(name("evil.torch", "Tensor") + text("1") + b"\x85R", "evil.torch.Tensor"),
    "a method of a known class": Indirect(
        name("collections", "OrderedDict.__init__.__globals__") + text("1") + b"\x85R",
        "collections.OrderedDict.__init__.__globals__",
    ),
    "a call of what a call gives": Indirect(name("m", "f") + b")R)R", "m.f()"),
    "__main__": Indirect(name("__main__", "run") + b")R", "__main__.run"),
    "a name that is only named": Indirect(name("os", "system"), "os.system"),
}
"""The way -> its opcodes, and the name that stands for them in the list."""


def in_protocol_0(module: str, attribute: str, command: str) -> bytes:
    """Write the call with the protocol's text opcodes alone."""
    return f"c{module}\n{attribute}\n(V{command}\ntR".encode()


class Reduced:
    """What Python's own pickler writes for an object whose `__reduce__` gives a call."""

    def __init__(self, function: Callable[..., object], *given: object) -> None:
        self.call = (function, given)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


def pickled(function: Callable[..., object], *given: object, protocol: int) -> bytes:
    """Give the opcodes of a value that the pickler of this Python wrote, without its envelope."""
    data = pickle.dumps(Reduced(function, *given), protocol)
    start = 2 if protocol >= 2 else 0
    if protocol >= 4 and data[start : start + 1] == b"\x95":
        start += 9
    return data[start:-1]
