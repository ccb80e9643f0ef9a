"""What the values of a pickle take in memory, in bytes: a rough count, that a few bytes of opcodes cannot outgrow."""

from __future__ import annotations

from ckptfix.formats.base import Node, Pairs
from ckptfix.formats.pickle.globals import LOAD_FROM_BYTES
from ckptfix.formats.pickle.values import Global

_ANY = 20
"""Of any opcode: it may push a value, and it takes time."""

_KINDS = {
    40: b"JM\x8a\x8bGIFL",  # numbers
    80: b"SUTVX\x8c\x8dBC\x8e\x96pr\x94",  # text and bytes, whose length is added as they are read; the memo
    260: b"]l\x8f\x91t\x85\x86\x87",  # lists and tuples, and a note each that they were looked into
    300: b"}d",
    700: b"c\x93\x82\x83\x84RioPQ\x81\x92",  # records, tensors, storages
}

COSTS = tuple(next((cost for cost, opcodes in _KINDS.items() if opcode in opcodes), _ANY) for opcode in range(256))
"""The cost of each opcode by its number."""

COST_OF_PAIR = 100
"""Of a key with its value, and of the name that it gets where it is looked into."""

NESTED_BUDGET = 8 << 10
"""Of a storage that is a small file of its own: its pickles are run."""


def cost_of_text(text: str) -> int:
    """Give the bytes that text takes beside what every opcode costs: up to four for each character."""
    return len(text) if text.isascii() else 4 * len(text)


def cost_of_call(function: Node, args: tuple[Node, ...]) -> int:
    """Give what a call may copy or look through: its arguments, which the pickle may pass again and again."""
    cost = 8 * len(args)
    for arg in args:
        if isinstance(arg, _TEXTS):
            cost += len(arg)
        elif isinstance(arg, _SEQUENCES):
            cost += 20 * len(arg)
        elif isinstance(arg, Pairs):
            cost += 20 * len(arg.items)
    if isinstance(function, Global) and function.name == _LOAD and (function.module, _LOAD) == LOAD_FROM_BYTES:
        cost += NESTED_BUDGET
    return cost


_TEXTS = (str, bytes)
_SEQUENCES = (list, tuple)
_LOAD = LOAD_FROM_BYTES[1]
