"""The machine: a stack, marks, a memo, and calls that are recorded instead of made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sized

from ckptfix.errors import LimitExceeded, MalformedFile
from ckptfix.formats.base import Node, Opaque, Pairs
from ckptfix.formats.pickle import limits
from ckptfix.formats.pickle.costs import COST_OF_PAIR, COSTS, cost_of_call
from ckptfix.formats.pickle.globals import CONSTRUCTORS, Constructor, construct, modern_module
from ckptfix.formats.pickle.opcodes import STEPS, STOP
from ckptfix.formats.pickle.stream import Stream
from ckptfix.formats.pickle.values import Global, Unbuilt


class Machine:
    """Runs pickles from a stream. `persistent` gives the value that a persistent id stands for.

    `constructors` are the calls whose values are known. `created` collects every record that the pickles made, also
    those that they then threw away. `spent` is what the values have cost so far; `storages` are those that the file
    holds, each of which pays for a tensor of a sound pickle.
    """

    stream: Stream
    persistent: Callable[[Node], Node]
    created: list[Opaque]
    stack: list[Node]
    marks: list[list[Node]]
    memo: dict[int, Node]
    numbered: int
    """All numbers of the memo below this one were given."""
    beyond: set[int]
    """And these above it."""
    spent: int

    def __init__(
        self,
        stream: Stream,
        persistent: Callable[[Node], Node],
        constructors: Mapping[tuple[str, str], Constructor] = CONSTRUCTORS,
        *,
        storages: Sized = (),
        budget: int = limits.BUDGET,
    ) -> None:
        self.stream = stream
        self.persistent = persistent
        self.created = []
        self._clear()
        self.spent = 0
        self._constructors = constructors
        self._storages = storages
        self._budget = budget

    def load(self) -> Node:
        """Run one pickle to its STOP and give its value.

        Raises MalformedFile for what is no pickle, LimitExceeded for one that costs too much.
        """
        self._clear()
        self.stream.begin()
        allowed = self._budget
        for opcode in self.stream.opcodes():
            self.spent += COSTS[opcode]
            if self.spent > allowed:
                allowed = self._check_budget()
            step = STEPS[opcode]
            if step is not None:
                step(self)
            elif opcode == STOP:
                # What lies below is thrown away by every reader: an injected call leaves its result there.
                return self.pop()
            else:
                raise self.fault(f"has an unknown opcode, {opcode:#04x}")
        raise AssertionError("the opcodes end with the stream, which raises")

    def _clear(self) -> None:
        self.stack, self.marks, self.memo = [], [], {}
        self.numbered, self.beyond = 0, set()

    def _check_budget(self) -> int:
        """Give what may be spent by now. Raises LimitExceeded where it is spent."""
        allowed = self._budget + limits.STORAGE_BUDGET * len(self._storages)
        if self.spent > allowed:
            raise LimitExceeded(f"a pickle makes more values than its {len(self._storages)} storages can need")
        return allowed

    def fault(self, text: str) -> MalformedFile:
        """Say what is wrong with the pickle, and where."""
        return MalformedFile(f"the pickle {text}, before byte {self.stream.position}")

    def pop(self) -> Node:
        """Take the topmost value above the last mark."""
        if not self.stack:
            raise self.fault("takes a value from an empty stack")
        return self.stack.pop()

    def top(self) -> Node:
        """Look at the topmost value above the last mark."""
        if not self.stack:
            raise self.fault("looks at an empty stack")
        return self.stack[-1]

    def mark(self) -> None:
        """Set a mark: what lies below is out of reach until it is taken."""
        if len(self.marks) >= limits.MARKS:
            raise LimitExceeded(f"a pickle nests more than {limits.MARKS} marks")
        self.marks.append(self.stack)
        self.stack = []

    def pop_mark(self) -> list[Node]:
        """Take the last mark and all that lies on it."""
        if not self.marks:
            raise self.fault("lacks a MARK")
        items, self.stack = self.stack, self.marks.pop()
        return items

    def remember(self, index: int) -> None:
        """Put the topmost value into the memo, unless the pickle cannot ask for it again."""
        if index == self.numbered:
            self.numbered += 1
            self.beyond.discard(index)
        elif index > self.numbered:
            self.beyond.add(index)
        if index in self.stream.recalled:
            self.memo[index] = self.top()

    def memoize(self) -> None:
        """Put the topmost value into the memo, under the number of values that were put there."""
        self.remember(self.numbered + len(self.beyond))

    def recall(self, index: int) -> None:
        """Push a value of the memo."""
        if index not in self.memo:
            raise self.fault(f"asks for memo {index}, which it has not set")
        value = self.memo[index]
        # A pickle puts an object into the memo before it sets its state.
        self.stack.append(value.value if isinstance(value, Unbuilt) and value.value is not None else value)

    def gather(self, length: int) -> None:
        """Make a tuple of the topmost `length` values."""
        if len(self.stack) < length:
            raise self.fault("takes a value from an empty stack")
        self.stack[-length:] = [tuple(self.stack[-length:])]

    def pair(self, items: list[Node]) -> list[tuple[Node, Node]]:
        """Take the items by twos: key, value, key, value."""
        if len(items) % 2:
            raise self.fault("has a key without a value")
        self.spent += COST_OF_PAIR * len(items) // 2
        return list(zip(items[::2], items[1::2], strict=True))

    def extend(self, items: list[Node]) -> None:
        """Append to the topmost value."""
        target = self.top()
        if isinstance(target, Opaque):
            target.items.extend(items)
        elif isinstance(target, list):
            target.extend(items)
        else:
            raise self.fault(f"appends to {type(target).__name__}")

    def update(self, pairs: list[tuple[Node, Node]]) -> None:
        """Set keys of the topmost value. A key is not compared with those that are there."""
        target = self.top()
        if isinstance(target, Pairs):
            target.items.extend(pairs)
        elif isinstance(target, Opaque):
            target.entries.extend(pairs)
        else:
            raise self.fault(f"sets a key of {type(target).__name__}")

    def name(self, module: Node, name: Node) -> Global:
        """Make a record of a name that would be imported."""
        if not isinstance(module, str) or not isinstance(name, str):
            raise self.fault("names a global by something other than text")
        if len(module) + len(name) > limits.NAME:
            raise LimitExceeded(f"a pickle names a global of {len(module) + len(name)} characters")
        found = Global(modern_module(module), name)
        self.record(found)
        return found

    def call(self, function: Node, args: Node) -> Node:
        """Give the value of a call, or a record of it."""
        if not isinstance(args, tuple):
            raise self.fault("calls something with arguments that are no tuple")
        self.spent += cost_of_call(function, args)
        made = construct(function, args, self._constructors)
        # What is unbuilt is data of a known kind, and a folder of shards has a million of them.
        if isinstance(made, Opaque) and not isinstance(made, Unbuilt):
            self.record(made)
        return made

    def build(self, state: Node) -> None:
        """Set the state of the topmost value."""
        target = self.top()
        # Attributes of anything but a record (a state dict's `_metadata`, a tensor's hooks) hold no weights.
        if isinstance(target, Opaque):
            target.state = state if target.state is None else self._add_state(target.state, state)
        if isinstance(target, Unbuilt) and (value := target.build(state)) is not None:
            self.stack[-1] = target.value = value
        elif isinstance(target, tuple) and type(target) is not tuple:
            raise self.fault("sets the state of a value twice")

    def _add_state(self, first: Node, second: Node) -> Node:
        """Give the state after another one: attributes are added, of anything else both are kept as they came."""
        if not isinstance(first, Pairs) or not isinstance(second, Pairs):
            return (first, second)
        self.spent += COST_OF_PAIR * (len(first.items) + len(second.items))
        return Pairs([*first.items, *second.items])

    def record(self, value: Opaque) -> None:
        """Keep a record for the report."""
        self.created.append(value)
