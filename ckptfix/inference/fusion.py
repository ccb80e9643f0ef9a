"""Several tensors laid end to end in one: queries, keys and values, gates and ways up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct

from ckptfix.inference.candidate import INTERLEAVED, UNNAMED, Match
from ckptfix.inference.lexicon import concept
from ckptfix.inference.names import Name, kinds_agree, similarity
from ckptfix.inference.slots import Slot
from ckptfix.tensors import Shape


class Fusing(Struct, frozen=True):
    """The slots of both sides with their roles, and whether the file's matrices are transposed, where that is known."""

    sources: Sequence[Slot]
    targets: Sequence[Slot]
    source_roles: Mapping[str, str]
    target_roles: Mapping[str, str]
    weights: dict[str, float]
    turned: bool | None

    def matches(self) -> Iterator[Match]:
        """Fuse or split queries, keys and values, gates and ways up, where shapes add up."""
        used: set[str] = set()
        for parts, whole in (
            (("q", "k", "v"), "qkv"),
            (("q", "kv"), "qkv"),
            (("k", "v"), "kv"),
            (("gate", "up"), "gate_up"),
        ):
            for split in (False, True):
                sides = (self.sources, self.source_roles), (self.targets, self.target_roles)
                (many, many_roles), (few, few_roles) = reversed(sides) if split else sides
                many = [slot for slot in many if slot.place not in used]
                for match in self._join(many, few, many_roles, few_roles, parts, whole, split=split):
                    used |= {slot.place for slot in (match.targets if split else match.sources)}
                    yield match

    def _join(
        self,
        many: Sequence[Slot],
        few: Sequence[Slot],
        many_roles: Mapping[str, str],
        few_roles: Mapping[str, str],
        parts: tuple[str, ...],
        whole: str,
        *,
        split: bool,
    ) -> Iterator[Match]:
        groups: dict[tuple[str, ...], dict[str, Slot]] = {}
        taken: set[str] = set()
        for slot in many:
            role = many_roles.get(slot.place, "").removeprefix("cross ")
            if role in parts:
                groups.setdefault(slot.stem, {}).setdefault(role, slot)
        orders = {slot.place: _order(slot.name, parts) for slot in few}
        both_cross = all(any(map(_is_cross, side.values())) for side in (many_roles, few_roles))
        for stem, members in groups.items():
            if set(members) != set(parts):
                continue
            fits = [
                (slot, layout)
                for slot in few
                if slot.place not in taken
                and (layout := _fuse(members, slot, orders[slot.place], split=split, turned=self.turned))
            ]
            named = [
                (slot, layout) for slot, layout in fits if few_roles.get(slot.place, "").removeprefix("cross ") == whole
            ]
            if both_cross:
                crossing = any(_is_cross(many_roles[slot.place]) for slot in members.values())
                named = [pair for pair in named if _is_cross(few_roles[pair[0].place]) == crossing]
            if len(named) > 1:
                named.sort(key=lambda pair: -similarity(stem, pair[0].stem, self.weights))
                best, second = (similarity(stem, slot.stem, self.weights) for slot, _ in named[:2])
                named = named[:1] if best > second + 0.05 else []
            unnamed = [(slot, layout) for slot, layout in fits if not self._has_twin(slot, many)]
            chosen = named or (unnamed if len(unnamed) == 1 and len(parts) > 2 else [])
            if not chosen or any(self._fits_alone(slot, few) for slot in members.values()):
                continue
            slot, layout = chosen[0]
            taken.add(slot.place)
            ordered = tuple(members[part] for part in orders[slot.place])
            why = INTERLEAVED if "querykeyvalue" in slot.name.words else "" if named else UNNAMED
            sources, targets = ((slot,), ordered) if split else (ordered, (slot,))
            yield Match(
                sources,
                targets,
                layout,
                support=2.0 if named else 1.0,
                margin=2.0,
                evidence={"names", "shapes"},
                why=why,
            )

    def _has_twin(self, slot: Slot, others: Sequence[Slot]) -> bool:
        """Tell whether the other side has a tensor that may be this one as it is."""
        return any(other.name.kind == slot.name.kind and other.shapes == slot.shapes for other in others)

    def _fits_alone(self, slot: Slot, others: Sequence[Slot]) -> bool:
        """Tell whether the other side has the same place by itself: then it is neither split nor fused."""
        roles = {**self.source_roles, **self.target_roles}
        return any(
            roles.get(other.place) == roles.get(slot.place)
            and other.name.kind == slot.name.kind
            and other.shapes == slot.shapes
            and similarity(slot.stem, other.stem, self.weights) > 0.5
            for other in others
        )


def _is_cross(role: str) -> bool:
    return role.startswith("cross ")


def _order(name: Name, parts: tuple[str, ...]) -> tuple[str, ...]:
    """Give the parts in the order that the name of the whole gives (`kqv`, `up_gate`), else the usual one."""
    said: list[str] = []
    for word in name.words:
        letters = word.removeprefix("w")
        said += letters if set(letters) == set(parts) else [concept(word)]
    said = [part for part in said if part in parts]
    return tuple(said) if sorted(said) == sorted(parts) else parts


def _fuse(
    members: Mapping[str, Slot], whole: Slot, names: Sequence[str], *, split: bool, turned: bool | None
) -> str | None:
    """Give the layout that joins the members, in the order of `names`, where their extents add up in every block.

    `turned` says whether matrices of this file are transposed, where that is known: squares do not show it.
    """
    parts = [members[name] for name in names]
    if any(len(part.shapes) != len(whole.shapes) or not kinds_agree(part.name, whole.name) for part in parts):
        return None
    together = set(zip(*(part.shapes for part in parts), whole.shapes, strict=True))
    layouts = {_join_axis(shapes[:-1], shapes[-1], names, turned) for shapes in together}
    layout = layouts.pop() if len(layouts) == 1 else None
    if layout is None:
        return None
    stacked = any(part.terms[0].axis for part in parts)
    separate, fused = layout
    if stacked and whole.terms[0].axis is None and not separate.startswith("e "):
        return None
    return f"{fused} -> {separate}" if split else f"{separate} -> {fused}"


def _join_axis(
    parts: Sequence[Shape], whole: Shape, names: Sequence[str], known: bool | None
) -> tuple[str, str] | None:
    ranks = {len(part) for part in parts}
    if ranks == {len(whole) + 1} and len(whole) in (1, 2):
        return _join_heads(parts, whole, names)
    if ranks != {len(whole)} or whole == ():
        return None
    (rank,) = ranks
    letters = "xyz"
    lead = ["e"] if rank == 3 else []
    offset = len(lead)
    for axis in range(offset, rank):
        square = all(len(part) == 2 and part[0] == part[1] for part in parts)
        for turned in (known,) if square and known is not None else (False, True):
            if turned and rank - offset != 2:
                continue
            there = [tuple(part[:offset]) + tuple(reversed(part[offset:])) if turned else tuple(part) for part in parts]
            fits = sum(part[axis] for part in there) == whole[axis] and all(
                part[:axis] + part[axis + 1 :] == whole[:axis] + whole[axis + 1 :] for part in there
            )
            if not fits:
                continue
            axes = [*lead, *letters[: rank - offset]]
            if axis == 0 and not turned:  # all other axes are as they are, however many
                axes = ["", "..."]
            fused = list(axes)
            fused[axis] = f"({'+'.join(names)})"
            separate = []
            for name in names:
                own = list(axes)
                own[axis] = name
                separate.append(" ".join([*own[:offset], *reversed(own[offset:])] if turned else own))
            return ", ".join(separate), " ".join(fused)
    return None


def _join_heads(parts: Sequence[Shape], whole: Shape, names: Sequence[str]) -> tuple[str, str] | None:
    """Join parts whose rows are unfolded into heads, [inputs, heads, size], [heads, size, inputs] or [heads, size]."""
    for before, after in ((1, 0), (0, 1)) if len(whole) == 2 else ((0, 0),):
        outer = {(part[:before], part[len(part) - after :]) for part in parts}
        heads = [part[before : len(part) - after] for part in parts]
        rows = sum(count * size for count, size in heads)
        if (
            outer == {(whole[1:] * before, whole[1:] * after)}
            and len({size for _, size in heads}) == 1
            and rows == whole[0]
        ):
            lead, trail = "y " * before, " y" * after
            rest = " y" * (len(whole) - 1)
            return ", ".join(f"{lead}{name} h{trail}" for name in names), f"(({'+'.join(names)}) h){rest}"
    return None
