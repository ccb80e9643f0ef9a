"""What each opcode does to the machine. Meaning and form: Lib/pickletools.py of CPython, protocols 0 to 5."""

from __future__ import annotations

import codecs
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from ckptfix.errors import LimitExceeded
from ckptfix.formats.base import Pairs
from ckptfix.formats.pickle import limits
from ckptfix.formats.pickle.costs import cost_of_text
from ckptfix.formats.pickle.values import Run

if TYPE_CHECKING:
    from ckptfix.formats.pickle.machine import Machine

Step = Callable[["Machine"], None]

_FLOAT = struct.Struct(">d")


def _unsigned(m: Machine, width: int) -> int:
    return int.from_bytes(m.stream.take(width), "little")


def _length(m: Machine, width: int) -> int:
    """Read the length of an argument, in bytes."""
    return _allowed(_unsigned(m, width))


def _allowed(length: int) -> int:
    if length > limits.PICKLE_NBYTES:
        raise LimitExceeded(f"a pickle holds an argument of {length} bytes")
    return length


def _string(m: Machine, width: int) -> None:
    length = _unsigned(m, width)
    run = _leave(m, length, "bytes")
    m.spent += 0 if run else length
    m.stack.append(run or m.stream.take(_allowed(length)))


def _characters(m: Machine, width: int) -> None:
    length = _unsigned(m, width)
    m.stack.append(_leave(m, length, "str") or _text(m, m.stream.take(_allowed(length))))


def _leave(m: Machine, length: int, kind: Literal["bytes", "str"]) -> Run | None:
    """Pass over a long argument where weights may be in it; None where it is to be read."""
    if m.stream.path is None or length <= limits.HELD:
        return None
    run = Run(
        "builtins",
        kind,
        path=m.stream.path,
        offset=m.stream.position,
        nbytes=length,
        encoding="raw" if kind == "bytes" else "utf-8",
        fetch=m.stream.fetch,
    )
    m.stream.skip(length)
    # It pays for the tensor that is made of it, as a storage does, but for no more than the file is longer by it.
    m.spent -= min(length, limits.ARGUMENT_BUDGET)
    return run


def _long(m: Machine, width: int) -> int:
    length = _length(m, width)
    if length > limits.INTEGER_NBYTES:
        raise LimitExceeded(f"a pickle holds an integer of {length} bytes")
    return int.from_bytes(m.stream.take(length), "little", signed=True)


def _text(m: Machine, raw: bytes, encoding: str = "utf-8") -> str:
    try:
        text = raw.decode(encoding, "surrogatepass" if encoding == "utf-8" else "strict")
        m.spent += cost_of_text(text)
        return text
    except UnicodeDecodeError as error:
        raise m.fault(f"holds text that is not {encoding}") from error


def _integer(m: Machine, line: bytes) -> int:
    if len(line) > 2 * limits.INTEGER_NBYTES:
        raise LimitExceeded(f"a pickle holds an integer of {len(line)} digits")
    try:
        return int(line)
    except ValueError as error:
        raise m.fault("holds a number that is none") from error


def _int_line(m: Machine) -> None:
    # Protocol 0 writes booleans as the integers 00 and 01.
    line = m.stream.line()
    m.stack.append(line == b"01" if line in (b"00", b"01") else _integer(m, line))


def _float_line(m: Machine) -> None:
    try:
        m.stack.append(float(m.stream.line()))
    except ValueError as error:
        raise m.fault("holds a number that is none") from error


def _string_line(m: Machine) -> None:
    line = m.stream.line().strip()
    if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
        raise m.fault("holds a string without its quotes")
    try:
        m.stack.append(codecs.escape_decode(line[1:-1])[0])
    except ValueError as error:
        raise m.fault("holds a string with a broken escape") from error


def _pop(m: Machine) -> None:
    # POP takes a MARK too, where nothing lies on it.
    if m.stack:
        m.stack.pop()
    else:
        m.pop_mark()


def _push_items(m: Machine, make: Callable[[list[object]], object]) -> None:
    items = m.pop_mark()
    m.stack.append(make(items))  # type: ignore[arg-type]  # list, tuple and Pairs of nodes are nodes


def _setitem(m: Machine) -> None:
    value, key = m.pop(), m.pop()
    m.update([(key, value)])


def _lines(m: Machine) -> tuple[str, str]:
    return _text(m, m.stream.line()), _text(m, m.stream.line())


def _stack_global(m: Machine) -> None:
    name, module = m.pop(), m.pop()
    m.stack.append(m.name(module, name))


def _reduce(m: Machine) -> None:
    args, function = m.pop(), m.pop()
    m.stack.append(m.call(function, args))


def _new_object_with_keywords(m: Machine) -> None:
    keywords, args, function = m.pop(), m.pop(), m.pop()
    if not isinstance(args, tuple):
        raise m.fault("calls something with arguments that are no tuple")
    none = isinstance(keywords, Pairs) and not keywords.items
    m.stack.append(m.call(function, args if none else (*args, keywords)))


def _instance(m: Machine) -> None:
    module, name = _lines(m)
    args = tuple(m.pop_mark())
    m.stack.append(m.call(m.name(module, name), args))


def _object(m: Machine) -> None:
    items = m.pop_mark()
    if not items:
        raise m.fault("makes an object without a class")
    m.stack.append(m.call(items[0], tuple(items[1:])))


def _extension(m: Machine, width: int) -> None:
    # A number in the registry of `copyreg`, which a checkpoint cannot rely on.
    m.stack.append(m.name("copyreg.extension", str(_unsigned(m, width))))


def _out_of_band(m: Machine) -> None:
    raise m.fault("refers to a buffer outside of it")


def _protocol(m: Machine) -> None:
    if m.stream.take(1)[0] > 5:
        raise m.fault("is of a protocol newer than 5")


def _skip(m: Machine, length: int) -> None:
    m.stream.take(length)


STOP = ord(".")

_STEPS: dict[bytes, Step] = {
    # numbers and constants
    b"N": lambda m: m.stack.append(None),
    b"\x88": lambda m: m.stack.append(True),
    b"\x89": lambda m: m.stack.append(False),
    b"I": _int_line,
    b"L": lambda m: m.stack.append(_integer(m, m.stream.line().removesuffix(b"L"))),
    b"F": _float_line,
    b"J": lambda m: m.stack.append(int.from_bytes(m.stream.take(4), "little", signed=True)),
    b"K": lambda m: m.stack.append(m.stream.take(1)[0]),
    b"M": lambda m: m.stack.append(_unsigned(m, 2)),
    b"\x8a": lambda m: m.stack.append(_long(m, 1)),
    b"\x8b": lambda m: m.stack.append(_long(m, 4)),
    b"G": lambda m: m.stack.append(_FLOAT.unpack(m.stream.take(8))[0]),
    # text and bytes; a string of Python 2 stays bytes, since it may be either
    b"S": _string_line,
    b"T": lambda m: _string(m, 4),
    b"U": lambda m: _string(m, 1),
    b"V": lambda m: m.stack.append(_text(m, m.stream.line(), "raw-unicode-escape")),
    b"X": lambda m: _characters(m, 4),
    b"\x8c": lambda m: m.stack.append(_text(m, m.stream.take(_length(m, 1)))),
    b"\x8d": lambda m: _characters(m, 8),
    b"B": lambda m: _string(m, 4),
    b"C": lambda m: _string(m, 1),
    b"\x8e": lambda m: _string(m, 8),
    b"\x96": lambda m: _string(m, 8),
    # containers
    b")": lambda m: m.stack.append(()),
    b"]": lambda m: m.stack.append([]),
    b"}": lambda m: m.stack.append(Pairs()),
    b"\x8f": lambda m: m.stack.append([]),
    b"t": lambda m: _push_items(m, tuple),
    b"l": lambda m: _push_items(m, list),
    b"\x91": lambda m: _push_items(m, list),
    b"d": lambda m: _push_items(m, lambda items: Pairs(m.pair(items))),  # type: ignore[arg-type]
    b"\x85": lambda m: m.gather(1),
    b"\x86": lambda m: m.gather(2),
    b"\x87": lambda m: m.gather(3),
    b"a": lambda m: m.extend([m.pop()]),
    b"e": lambda m: m.extend(m.pop_mark()),
    b"\x90": lambda m: m.extend(m.pop_mark()),
    b"s": _setitem,
    b"u": lambda m: m.update(m.pair(m.pop_mark())),
    # stack and memo
    b"(": lambda m: m.mark(),
    b"0": _pop,
    b"1": lambda m: m.pop_mark().clear(),
    b"2": lambda m: m.stack.append(m.top()),
    b"p": lambda m: m.remember(_integer(m, m.stream.line())),
    b"q": lambda m: m.remember(m.stream.take(1)[0]),
    b"r": lambda m: m.remember(_unsigned(m, 4)),
    b"\x94": lambda m: m.memoize(),
    b"g": lambda m: m.recall(_integer(m, m.stream.line())),
    b"h": lambda m: m.recall(m.stream.take(1)[0]),
    b"j": lambda m: m.recall(_unsigned(m, 4)),
    # names, calls, persistent ids
    b"c": lambda m: m.stack.append(m.name(*_lines(m))),
    b"\x93": _stack_global,
    b"\x82": lambda m: _extension(m, 1),
    b"\x83": lambda m: _extension(m, 2),
    b"\x84": lambda m: _extension(m, 4),
    b"R": _reduce,
    b"\x81": _reduce,
    b"\x92": _new_object_with_keywords,
    b"i": _instance,
    b"o": _object,
    b"b": lambda m: m.build(m.pop()),
    b"P": lambda m: m.stack.append(m.persistent(m.stream.line())),
    b"Q": lambda m: m.stack.append(m.persistent(m.pop())),
    # the envelope; frames only help a reader of streams
    b"\x80": _protocol,
    b"\x95": lambda m: _skip(m, 8),
    b"\x97": _out_of_band,
    b"\x98": _out_of_band,
}

STEPS = tuple(_STEPS.get(bytes([opcode])) for opcode in range(256))
"""The step of each opcode by its number; None for STOP and for what is no opcode."""
