"""The places of a block: what is at `attn.qkv.weight` in every block of a kind, and the part that it plays."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

from msgspec import Struct

from ckptfix.inference.lexicon import GENERIC, concept
from ckptfix.inference.link import Term
from ckptfix.inference.names import Name, read_name
from ckptfix.tensors import Kind as NumberKind
from ckptfix.tensors import Shape, TensorSpec


class Slot(Struct, frozen=True, dict=True):
    """One place, in each of the blocks that are looked at together.

    `terms` and `shapes` are those of each block in turn; a term of several keys is stacked along its axis, which is the
    first of its shape. `label` is how the place is read, where that is not as it is written. `position` is the place
    among all slots, `owner` the class of the module, where known, and `number` the kind of its numbers.
    """

    place: str
    terms: tuple[Term, ...]
    shapes: tuple[Shape, ...]
    position: int
    owner: str = ""
    label: str = ""
    number: NumberKind = "float"

    @cached_property
    def name(self) -> Name:
        """The place, taken apart, as the label says it where there is one."""
        return read_name(self.label or self.place)

    @cached_property
    def role(self) -> str:
        """The part that it plays in attention, in a gated network or among norms; empty where no word tells."""
        return find_role(self.name)

    @property
    def stem(self) -> tuple[str, ...]:
        """The name without the word of its role: what slots that play together share."""
        return (*(word for word in self.name.words if concept(word) not in _ROLES | _GATED), self.name.kind)


_ROLES = {"query": "q", "key": "k", "value": "v", "fused": "qkv", "keyvalue": "kv", "querykeyvalue": "qkv"}
_SELF = {"self", "selfattn", "selfattention", "sa", "slf"}
_GATED = {"gate": "gate", "up": "up", "down": "down"}


def find_role(name: Name) -> str:
    """Tell the role by the words."""
    concepts = [concept(word) for word in name.words]
    if "norm" in concepts:
        return _norm_role(concepts)
    crossing = "cross " if "cross" in concepts or {"encoder", "attention"} <= set(concepts) else ""
    for word in reversed(concepts):
        if word in _ROLES:
            return crossing + _ROLES[word]
    if "gate" in concepts and "up" in concepts:
        return "gate_up"
    for word in reversed(concepts):
        if word in _GATED and (
            "project" in concepts or "mlp" in concepts or "expert" in concepts or "linear" in concepts
        ):
            return _GATED[word]
    if concepts and concepts[-1] in ("out", "project", "linear") and ("attention" in concepts or "cross" in concepts):
        return f"{crossing}o"
    return ""


def _norm_role(concepts: Sequence[str]) -> str:
    """Norms stand before or after, at the attention, at the cross attention, or at the network that follows."""
    inner = [word for word in concepts if word in ("query", "key")]
    if inner:
        return f"norm of {inner[0]}"
    crossing = "cross" in concepts or {"encoder", "attention"} <= set(concepts)
    if "after" in concepts:
        place = "cross" if crossing else next((word for word in ("attention", "mlp") if word in concepts), "")
        return f"norm after {place}".strip()
    if crossing:
        return "norm cross"
    if "attention" in concepts:
        return "norm first"
    if "before" in concepts:
        return "norm before mlp" if "mlp" in concepts else "norm first"
    if "mlp" in concepts or "final" in concepts or "out" in concepts:
        return "norm last"
    return ""


def read_slots(
    tensors: Mapping[str, TensorSpec],
    reads: Mapping[str, str],
    owners: Mapping[str, str] | None = None,
    scopes: Iterable[str] = (),
) -> list[Slot]:
    """Make a slot of each tensor, its place read by `reads` and its label from the innermost of `scopes` on."""
    ordered = sorted(scopes, key=len, reverse=True)
    slots: list[Slot] = []
    for position, (key, spec) in enumerate(tensors.items()):
        text = reads[key]
        scope = next((scope for scope in ordered if text.startswith(scope)), "")
        owner = (owners or {}).get(key, "")
        label = text.removeprefix(scope)
        slots.append(Slot(text, (Term.of(key),), (spec.shape,), position, owner, label, spec.dtype.kind))
    return slots


def word_weights(slots: Iterable[Slot]) -> dict[str, float]:
    """Weigh each word by how few places have it; generic ones hardly count."""
    places = list(slots)
    found: dict[str, int] = {}
    for slot in places:
        for meaning in {concept(word) for word in slot.name.words}:
            found[meaning] = found.get(meaning, 0) + 1
    weights: dict[str, float] = {}
    for slot in places:
        for word in slot.name.words:
            rarity = 0.1 + math.log(len(places) / found[concept(word)]) / math.log(len(places) + 1)
            weights[word] = rarity * (0.15 if word in GENERIC else 1.0)
    return weights


def stack_slots(slots: Sequence[Slot], wanted: Iterable[Slot]) -> list[Slot]:
    """Put slots that differ by one number, counted from 0, together along an axis where the other side has it so."""
    counts = {shape[0] for slot in wanted for shape in slot.shapes[:1] if len(shape) > 1}
    series: dict[str, dict[int, Slot]] = {}
    for slot in slots:
        template, number = _last_number(slot.place)
        if number is not None:
            series.setdefault(template, {})[number] = slot
    stacked: list[Slot] = []
    gone: set[str] = set()
    for template, members in series.items():
        count = len(members)
        same = len({slot.shapes for slot in members.values()}) == 1
        if count < 2 or count not in counts or set(members) != set(range(count)) or not same:
            continue
        inside = [members[number] for number in range(count)]
        if any(len(term.keys) > 1 for term in inside[0].terms):
            continue
        terms = tuple(Term(tuple(slot.terms[n].keys[0] for slot in inside), "e") for n in range(len(inside[0].terms)))
        shapes = tuple((count, *shape) for shape in inside[0].shapes)
        place = template.replace("#", "")
        label = _last_number(inside[0].label)[0].replace("#", "")
        stacked.append(Slot(place, terms, shapes, inside[0].position, inside[0].owner, label, inside[0].number))
        gone |= {slot.place for slot in inside}
    return sorted([slot for slot in slots if slot.place not in gone] + stacked, key=lambda slot: slot.position)


def _last_number(place: str) -> tuple[str, int | None]:
    """Replace the last number that is a whole segment with `#`."""
    segments = place.split(".")
    for at in range(len(segments) - 1, -1, -1):
        if segments[at].isdigit():
            return ".".join([*segments[:at], "#", *segments[at + 1 :]]), int(segments[at])
    return place, None


def tell_roles(slots: Sequence[Slot]) -> dict[str, str]:
    """Give the role of each place, from its words and from what stands beside it; places without one are left out.

    Of two norms the later is the last, whatever it is said to come after. Numbers tell too: of `norm1` and `norm2` the
    first and the last, of `w1`, `w2` and `w3` the gate, the way down and the way up. Of two attentions, one of which is
    said to be to itself, the other is the cross attention.
    """
    roles = {slot.place: slot.role for slot in slots if slot.role}
    batched = {slot.name.parent for slot in slots if slot.name.kind == "mean"}
    for slot in slots:
        if slot.name.parent in batched:  # such a norm belongs to the convolution that it follows
            roles.pop(slot.place, None)
    groups: dict[tuple[object, ...], list[Slot]] = {}
    for slot in slots:
        if slot.name.numbers and slot.name.parent not in batched:
            groups.setdefault((slot.name.words, slot.name.kind), []).append(slot)
    for members in groups.values():
        ordered = sorted(members, key=lambda slot: slot.name.numbers)
        roles |= {slot.place: role for slot, role in zip(ordered, _numbered(ordered, slots), strict=False)}
    roles |= _tell_three_norms(slots, roles)
    norms = {
        slot.name.parent
        for slot in slots
        if roles.get(slot.place, "").startswith("norm") and " of " not in roles[slot.place]
    }
    if len(norms) == 2:
        roles = {
            place: "norm last" if role.startswith(("norm after", "norm before")) else role
            for place, role in roles.items()
        }
    return roles | _tell_crossing(slots, roles)


def _numbered(members: Sequence[Slot], others: Sequence[Slot]) -> tuple[str, ...]:
    """Tell the roles of places that differ by numbers alone, in the order of the numbers."""
    words = members[0].name.words
    last = words[-1] if words else ""
    numbers = [slot.name.numbers[-1] for slot in members]
    if "norm" in map(concept, words) and numbers == list(range(numbers[0], numbers[0] + len(numbers))):
        return {2: ("norm first", "norm last"), 3: ("norm first", "norm cross", "norm last")}.get(len(numbers), ())
    shape = members[0].shapes[0]
    wide = len(shape) > 1 and shape[-1] != shape[-2]
    if wide and numbers[1:2] == [numbers[0] + 1] and members[1].shapes[0] == shape and concept(last) != "attention":
        back = (*shape[:-2], shape[-1], shape[-2])
        if len(members) == 3 and members[2].shapes[0] == back:
            return ("gate", "up", "down")
        if len(members) == 2 and sum(slot.shapes[0] == back for slot in others) == 1:
            return ("gate", "up")
    if last == "w" and numbers == [1, 2, 3]:
        return ("gate", "down", "up")
    if last == "w" and numbers == [3, 12]:
        return ("down", "gate_up")
    return ()


def _tell_three_norms(slots: Sequence[Slot], roles: Mapping[str, str]) -> dict[str, str]:
    """Check which of three numbered norms is that of the cross attention, by what is defined before it.

    Where the order is lost, only the names of `torch.nn.TransformerDecoderLayer` tell that its second norm is.
    """
    norms = {
        slot.place: slot.name.numbers
        for slot in slots
        if roles.get(slot.place) in ("norm first", "norm cross") and slot.name.numbers
    }
    if not any(roles[place] == "norm cross" for place in norms):
        return {}
    if is_sorted(slots):
        known = any("multihead" in slot.name.words for slot in slots)
        return {} if known else dict.fromkeys(norms, "")
    crossing: set[tuple[int, ...]] = set()
    before = ""
    for slot in sorted(slots, key=lambda slot: slot.position):
        role = roles.get(slot.place, "")
        if slot.place in norms and before.startswith("cross "):
            crossing.add(norms[slot.place])
        elif not role.startswith("norm") and len(slot.shapes[0]) > 1:
            before = role if role.endswith("o") else ""
    if len(crossing) != 1:
        return {}
    return {place: "norm cross" if numbers in crossing else "norm first" for place, numbers in norms.items()}


def _tell_crossing(slots: Iterable[Slot], roles: Mapping[str, str]) -> dict[str, str]:
    """Find the cross attention that is called so only by contrast with a self attention."""
    alike: dict[tuple[str, str], list[Slot]] = {}
    for slot in slots:
        role = roles.get(slot.place, "")
        if role.removeprefix("cross ") in (*_ROLES.values(), "o"):
            alike.setdefault((role.removeprefix("cross "), slot.name.kind), []).append(slot)
    found: dict[str, str] = {}
    for (role, _), members in alike.items():
        crossing = [slot for slot in members if not _SELF & set(slot.name.words)]
        if len(members) == 2 and len(crossing) == 1:
            found[crossing[0].place] = f"cross {role}"
    return found


def is_sorted(slots: Sequence[Slot]) -> bool:
    """Tell whether the places are in the order of their letters, which says nothing of how they were defined.

    Those of each kind of number for themselves: safetensors lists whole numbers first.
    """
    keys: dict[str, list[str]] = {}
    for slot in sorted(slots, key=lambda slot: slot.position):
        keys.setdefault(slot.number, []).append(slot.terms[0].keys[0])
    return all(listed == sorted(listed) for listed in keys.values())
