"""Pickles, taken apart into opcodes: these are moved, doubled, left out, put in, and given other arguments.

The form of each opcode is that of Lib/pickletools.py.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import Any

from ckptfix.formats.pickle.calls import WITH_ARRAYS
from tests.fuzz.mutate.numbers import near, number, text

UNSOUND = (pickle.UnpicklingError, struct.error, UnicodeError, OverflowError)


@dataclass(frozen=True)
class Op:
    """One opcode with its argument, as a value and as the bytes that stand for both."""

    name: str
    arg: Any  # whatever pickletools reads: a number, text, bytes or None
    raw: bytes


Ops = list[Op]

_NAMES = [
    *(f"{module} {name}" for module, name in WITH_ARRAYS),
    *("posix system", "builtins eval", "builtins getattr", "torch FloatStorage", "torch BFloat16Storage"),
    *(
        "torch.storage UntypedStorage",
        "torch float8_e5m2",
        "torch qint8",
        "numpy dtype",
        "numpy ndarray",
        "no.such name",
    ),
    *("__torch__.net Net", "collections deque", "a b.c.d"),
]


def change(data: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
    """Change a pickle; what follows it stays."""
    ops, rest = take_apart(data)
    return join(change_ops(ops, rng, [other for other in others if other.startswith(b"\x80")])) + rest


@lru_cache(maxsize=256)
def _parse(data: bytes) -> tuple[tuple[Op, ...], int]:
    stream = io.BytesIO(data)
    found = list(pickletools.genops(stream))
    ends = [place or 0 for _, _, place in found[1:]] + [stream.tell()]
    return tuple(
        Op(code.name, arg, data[place or 0 : end]) for (code, arg, place), end in zip(found, ends, strict=True)
    ), stream.tell()


def take_apart(data: bytes) -> tuple[Ops, bytes]:
    """Give the opcodes of the first pickle, and what comes after. Raises ValueError or UNSOUND for a broken one."""
    ops, end = _parse(data)
    return list(ops), data[end:]


def join(ops: Ops) -> bytes:
    """Write opcodes down."""
    return b"".join(op.raw for op in ops)


def change_ops(ops: Ops, rng: Random, others: Sequence[bytes]) -> Ops:
    """Change a list of opcodes once or a few times."""
    # A frame only says how much to read at once; one that lies is tried too.
    if rng.random() < 0.8:
        ops = [op for op in ops if op.name != "FRAME"]
    for _ in range(rng.choice((1, 1, 1, 2))):
        ops = _CHANGES[rng.randrange(len(_CHANGES))](ops, rng, others) if ops else [_any_op(rng)]
    return ops


def _swap(ops: Ops, rng: Random, others: Sequence[bytes]) -> Ops:
    one, two = rng.randrange(len(ops)), rng.randrange(len(ops))
    changed = list(ops)
    changed[one], changed[two] = ops[two], ops[one]
    return changed


def _leave_out(ops: Ops, rng: Random, others: Sequence[bytes]) -> Ops:
    at = rng.randrange(len(ops))
    return ops[:at] + ops[at + rng.choice((1, 1, 2, 6)) :]


def _repeat(ops: Ops, rng: Random, others: Sequence[bytes]) -> Ops:
    at, length = rng.randrange(len(ops)), rng.choice((1, 1, 2, 4, 12))
    return ops[:at] + ops[at : at + length] * rng.choice((2, 2, 3, 40, 400)) + ops[at + length :]


def _insert(ops: Ops, rng: Random, others: Sequence[bytes]) -> Ops:
    at = rng.randrange(len(ops) + 1)
    return ops[:at] + [_any_op(rng) for _ in range(rng.choice((1, 1, 2, 5)))] + ops[at:]


def _replace(ops: Ops, rng: Random, others: Sequence[bytes]) -> Ops:
    at = rng.randrange(len(ops))
    return [*ops[:at], _any_op(rng), *ops[at + 1 :]]


def _cut(ops: Ops, rng: Random, others: Sequence[bytes]) -> Ops:
    kept = ops[: rng.randrange(len(ops))]
    return kept if rng.random() < 0.3 else [*kept, Op("STOP", None, b".")]


def _splice(ops: Ops, rng: Random, others: Sequence[bytes]) -> Ops:
    other = take_apart(rng.choice(others))[0] if others else ops
    start, length = rng.randrange(len(other)), rng.choice((1, 3, 10, 40))
    at = rng.randrange(len(ops) + 1)
    return ops[:at] + other[start : start + length] + ops[at + rng.choice((0, 0, length)) :]


def _argument(ops: Ops, rng: Random, others: Sequence[bytes]) -> Ops:
    """Give another argument to an opcode that has one."""
    places = [place for place, op in enumerate(ops) if op.arg is not None and op.name in _ENCODINGS]
    if not places:
        return _replace(ops, rng, others)
    at = rng.choice(places)
    return [*ops[:at], _with_other_argument(ops[at], rng), *ops[at + 1 :]]


_CHANGES: tuple[Callable[[Ops, Random, Sequence[bytes]], Ops], ...] = (
    *(_argument, _argument, _argument, _argument, _argument),
    *(_swap, _leave_out, _repeat, _insert, _insert, _replace, _cut, _splice),
)


def _with_other_argument(op: Op, rng: Random) -> Op:
    if isinstance(op.arg, bool | float):
        return _encode(rng.choice(("NEWTRUE", "NEWFALSE", "BINFLOAT")), number(rng))
    if isinstance(op.arg, int):
        memo = op.name in ("BINGET", "BINPUT", "LONG_BINGET", "LONG_BINPUT")
        return _encode(op.name if memo or rng.random() < 0.3 else "LONG1", near(rng, op.arg))
    if op.name in ("GLOBAL", "INST"):
        return _encode(op.name, rng.choice(_NAMES))
    return _encode(op.name, text(rng))


def _any_op(rng: Random) -> Op:
    """Draw an opcode, with an argument of the right form that may be wrong."""
    code = rng.choice(pickletools.opcodes)
    if code.name in ("GLOBAL", "INST"):
        return _encode(code.name, rng.choice(_NAMES))
    return _encode(code.name, number(rng) if rng.random() < 0.7 else text(rng))


def _encode(name: str, value: int | str) -> Op:
    """Write an opcode; `value` becomes what its form asks for."""
    code = _CODES[name].code.encode("latin-1")
    argument = _ENCODINGS[name](value) if name in _ENCODINGS else b""
    return Op(name, value, code + argument)


_CODES = {code.name: code for code in pickletools.opcodes}


def _integer(value: int | str) -> int:
    return value if isinstance(value, int) else len(value)


def _bytes(value: int | str) -> bytes:
    return str(value).encode("utf-8", "surrogatepass")


def _fixed(width: int) -> Callable[[int | str], bytes]:
    return lambda value: (_integer(value) % (1 << (8 * width))).to_bytes(width, "little")


def _counted(width: int) -> Callable[[int | str], bytes]:
    """Write a length and so many bytes; a number is a length that lies."""

    def encode(value: int | str) -> bytes:
        if isinstance(value, int):
            return _fixed(width)(value) + b"abcd"
        return (len(_bytes(value)) % (1 << (8 * width))).to_bytes(width, "little") + _bytes(value)

    return encode


def _long(width: int) -> Callable[[int | str], bytes]:
    def encode(value: int | str) -> bytes:
        raw = pickle.encode_long(_integer(value))
        return len(raw).to_bytes(width, "little") + raw

    return encode


def _line(value: int | str) -> bytes:
    return _bytes(value) + b"\n"


_ENCODINGS: dict[str, Callable[[int | str], bytes]] = {
    **dict.fromkeys(("INT", "FLOAT", "UNICODE", "PERSID", "GET", "PUT"), _line),
    "LONG": lambda value: _bytes(_integer(value)) + b"L\n",
    "STRING": lambda value: repr(str(value)).encode("ascii", "backslashreplace") + b"\n",
    **dict.fromkeys(("GLOBAL", "INST"), lambda value: str(value).replace(" ", "\n", 1).encode() + b"\n"),
    **dict.fromkeys(("BININT1", "BINGET", "BINPUT", "EXT1", "PROTO"), _fixed(1)),
    **dict.fromkeys(("BININT2", "EXT2"), _fixed(2)),
    **dict.fromkeys(("BININT", "LONG_BINGET", "LONG_BINPUT", "EXT4"), _fixed(4)),
    "FRAME": _fixed(8),
    "BINFLOAT": lambda value: struct.pack(">d", float(_integer(value))),
    "LONG1": _long(1),
    "LONG4": _long(4),
    **dict.fromkeys(("SHORT_BINUNICODE", "SHORT_BINBYTES", "SHORT_BINSTRING"), _counted(1)),
    **dict.fromkeys(("BINUNICODE", "BINBYTES", "BINSTRING"), _counted(4)),
    **dict.fromkeys(("BINUNICODE8", "BINBYTES8", "BYTEARRAY8"), _counted(8)),
}
