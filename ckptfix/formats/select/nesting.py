"""How the values of a file lie inside one another: as mappings with text names, flattened with dots."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

from ckptfix.errors import LimitExceeded, MalformedFile
from ckptfix.formats.base import Node, Opaque, Pairs, TensorRef
from ckptfix.formats.pickle.values import Parts, Wrapper
from ckptfix.formats.select.unread import is_unread

Named = list[tuple[str, Node]]

_TENSORS = TensorRef, Parts, Wrapper

MAX_VISITS = 100_000
PASSES = 3
"""Values looked at while a file is flattened, beside so many looks at each: one under several keys is visited for each
of them."""

MAX_KEY = 4096
"""Characters of a flattened key."""


MAX_KEYS = 32 << 20
"""Characters of all flattened keys; those of a hundred thousand tensors take about 6 million."""


class Budget:
    """Counts the values visited, and the keys that they are given, over all passes through one file."""

    def __init__(self) -> None:
        self._left = MAX_VISITS
        self._letters = MAX_KEYS
        self._seen: set[int] = set()

    def spend(self, container: Node, visits: int) -> None:
        """Count a look at each value in a container. Raises LimitExceeded once the file has cost more than it holds."""
        if id(container) not in self._seen:
            self._seen.add(id(container))
            self._left += PASSES * visits
        self._left -= visits
        if self._left < 0:
            raise LimitExceeded("the file's mappings unfold into far more values than it holds")

    def keep(self, key: str) -> str:
        """Count a key that is kept. Raises LimitExceeded once all of them are too long."""
        self._letters -= len(key)
        if self._letters < 0:
            raise LimitExceeded(f"the keys of the file have more than {MAX_KEYS} characters")
        return key


def name_of(key: Node) -> str | None:
    """Give a mapping's key as text. Byte strings of Python 2 are decoded; None for a key that is not text."""
    if isinstance(key, str):
        return key
    if not isinstance(key, bytes):
        return None
    try:
        return key.decode("utf-8")
    except UnicodeDecodeError:
        return None


def names_in(mapping: Pairs) -> set[str | None]:
    """Give the keys of a mapping as text, None among them for those that are not text."""
    return {key if isinstance(key, str) else name_of(key) for key, _ in mapping.items}


def mapping_of(node: Node) -> Pairs | None:
    """Give the mapping that a value is or stands for; None where it is none.

    A pickled module stands for its state dict, another object for its items or its attributes.
    """
    if isinstance(node, Pairs):
        return node
    if not isinstance(node, Opaque):
        return None
    if is_module(node):
        return _module_mapping(node)
    if node.entries:
        return Pairs(node.entries)
    return _attributes(node)


def _attributes(record: Opaque) -> Pairs | None:
    """Give the attributes of an object, those in slots after the others: `copyreg.__reduce_ex__` of CPython."""
    match record.state:
        case Pairs():
            return record.state
        case (None | Pairs() as own, Pairs() as slots):
            return Pairs([*(own.items if own is not None else ()), *slots.items])
    return None


def is_module(node: Node) -> bool:
    """Whether a value is a pickled `torch.nn.Module`: its attributes tell, whatever its class."""
    if not isinstance(node, Opaque) or not isinstance(node.state, Pairs):
        return False
    return {"_parameters", "_modules"} <= names_in(node.state)


def _module_mapping(module: Opaque) -> Pairs:
    """Give what `Module.state_dict` lists: parameters, persistent buffers, then the children."""
    assert isinstance(module.state, Pairs)  # is_module has looked
    attributes = {name_of(key): value for key, value in module.state.items}
    transient = attributes.get("_non_persistent_buffers_set")
    names = {name_of(name) for name in transient} if isinstance(transient, list) else set()
    items: list[tuple[Node, Node]] = []
    for group in ("_parameters", "_buffers", "_modules"):
        members = attributes.get(group)
        for key, value in members.items if isinstance(members, Pairs) else ():
            if value is not None and not (group == "_buffers" and name_of(key) in names):
                items.append((key, value))
    return Pairs(items)


def is_tensor(node: Node) -> bool:
    """Whether a value is one tensor, be it made of several: sparse, quantised, nested or wrapping ones."""
    return isinstance(node, _TENSORS)


def is_optimizer(node: Node) -> bool:
    """Whether a value is the state of an optimizer."""
    mapping = mapping_of(node)
    return mapping is not None and {"state", "param_groups"} <= names_in(mapping)


def children(node: Node) -> Named:
    """List what lies directly inside a value, with the names that a dotted path gives them."""
    mapping = mapping_of(node)
    if mapping is not None:
        found = _labelled(mapping)
    elif isinstance(node, list | tuple):
        return [(str(index), value) for index, value in enumerate(node)]
    else:
        found = []
    if isinstance(node, Opaque) and not is_module(node):
        found += [(name, part) for name, part in (("args", node.args), ("items", node.items)) if part]
        if _attributes(node) is None:
            found.append(("state", node.state))
    return found


def _labelled(mapping: Pairs) -> Named:
    return [(key if isinstance(key, str) else _label(key), value) for key, value in mapping.items]


def _label(key: Node) -> str:
    name = name_of(key)
    if name is not None:
        return name
    return str(key) if isinstance(key, int | float | None) else type(key).__name__


class Flat(NamedTuple):
    """What lies in a value under dotted keys: the tensors, the keys of what holds none, tensors that are not read."""

    tensors: dict[str, TensorRef]
    ignored: tuple[str, ...]
    unread: dict[str, Opaque]


def flatten(root: Node, budget: Budget, follow: Literal["mappings", "everything"]) -> Flat:
    """Give all that lies in a value under dotted keys, in the file's order.

    Lists count as mappings from their indices. With `mappings`, optimizers and the arguments of objects are left out.
    Raises MalformedFile where two tensors have one key.
    """
    tensors: dict[str, TensorRef] = {}
    ignored: dict[str, None] = {}
    unread: dict[str, Opaque] = {}
    for key, value, holder in _leaves(root, budget, follow):
        if not isinstance(value, TensorRef):
            if holder not in ignored:
                ignored[budget.keep(holder)] = None
            if isinstance(value, Opaque) and is_unread(value):
                unread[budget.keep(key)] = value
        elif key in tensors:
            raise MalformedFile(f"two tensors have the key {key[:200]!r}")
        else:
            tensors[budget.keep(key)] = value
    return Flat(tensors, tuple(ignored), unread)


def _leaves(root: Node, budget: Budget, follow: Literal["mappings", "everything"]) -> Iterator[tuple[str, Node, str]]:
    """Give each leaf with its key and the key of the nearest mapping's entry: a list is reported once.

    A tensor that is not read comes before what lies in it.
    """
    levels: list[Iterator[tuple[str, Node, str]]] = [iter([("", root, "")])]
    open_now: dict[int, None] = {}  # in order: one for each level but the first
    while levels:
        for key, value, holder in levels[-1]:
            inside = None if isinstance(value, TensorRef) else _inside(value, follow, root)
            if inside is None:
                yield key, value, holder
            elif id(value) not in open_now:  # what contains itself adds nothing below itself
                if is_unread(value) and not isinstance(value, Wrapper):
                    yield key, value, holder  # whatever can be read inside it, it cannot itself
                budget.spend(value, len(inside))
                open_now[id(value)] = None
                listed = isinstance(value, list | tuple)
                levels.append(_below(inside, key, holder if listed and key else None))
                break
        else:
            levels.pop()
            if levels:
                open_now.popitem()


def _below(inside: Named, key: str, holder: str | None) -> Iterator[tuple[str, Node, str]]:
    """Give what lies in a container with its keys. They are joined one at a time: a deep one has many long keys."""
    for name, child in inside:
        path = join(key, name)
        yield path, child, path if holder is None else holder


def _inside(value: Node, follow: Literal["mappings", "everything"], root: Node) -> Named | None:
    if isinstance(value, list | tuple):
        return children(value)
    if not isinstance(value, Pairs | Opaque):
        return None
    if follow == "everything":
        return children(value) or None
    mapping = mapping_of(value)
    if mapping is None or (value is not root and is_optimizer(value)):
        return None
    return _labelled(mapping)


def join(path: str, name: str) -> str:
    """Put a dot between a path and the name that follows. Raises LimitExceeded where no key is that long."""
    key = f"{path}.{name}" if path else name
    if len(key) > MAX_KEY:
        raise LimitExceeded(f"a key is longer than {MAX_KEY} characters: {key[:80]!r}…")
    if not key.isascii() and any("\ud800" <= letter <= "\udfff" for letter in key):
        raise MalformedFile(f"a key is not Unicode: {key[:80]!r}")
    return key
