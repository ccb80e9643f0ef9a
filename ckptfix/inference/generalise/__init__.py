"""Turn links into a short recipe: placeholders and index arithmetic instead of a line for each tensor.

Every rule is tried on the table as it stands where the rule would, and the whole recipe is planned in the end: what
it says of each key is what the links say, or the links are written out key by key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct

from ckptfix.inference.generalise.bases import rebased
from ckptfix.inference.generalise.check import does_as_told
from ckptfix.inference.generalise.draft import Infeasible
from ckptfix.inference.generalise.names import named_lines, table_names, written_tables
from ckptfix.inference.generalise.remarks import make_remarks
from ckptfix.inference.generalise.steps import Laid, Order, lay_out
from ckptfix.inference.generalise.task import Task, make_task
from ckptfix.inference.generalise.write import write_recipe, write_rules
from ckptfix.inference.link import Link
from ckptfix.tensors import Manifest

__all__ = ["Written", "generalise", "write_rules"]

_OTHER_ORDERS: tuple[Order, ...] = ("rename first", "out of the way")
"""What is tried where no other order is possible."""


class Written(Struct, frozen=True):
    """A recipe as plain values, as YAML whose comments say what each rule rests on, and its number of rules."""

    values: Mapping[str, object]
    text: str
    rules: int


def generalise(
    links: Sequence[Link],
    have: Manifest,
    want: Manifest,
    *,
    filled: Sequence[str],
    copied: Mapping[str, str],
    dropped: Sequence[str],
    source: Mapping[str, object],
    description: str,
) -> Written:
    """Write the shortest recipe found that makes of each target key what the links say.

    `filled` are target keys that keep their initial value, `copied` maps a target key to the one that it repeats,
    `dropped` are source keys without a use, `source` are the fields of the recipe's `source`. Raises CkptfixError for
    a layout or resize that does not fit.
    """
    strip = source.get("strip", ())
    prefixes = (strip,) if isinstance(strip, str) else tuple(strip) if isinstance(strip, list | tuple) else ()
    task = make_task(links, have, want, filled, copied, dropped, prefixes)
    head: dict[str, object] = {"ckptfix": 1, "description": description}
    if source:
        head["source"] = dict(source)
    written = _written(_shortest(task), task, head)
    if does_as_told(written.values, task, have):
        return written
    return _written(lay_out(task, "out of the way", "key by key"), task, head)


def _shortest(task: Task) -> Laid:
    tasks = [task, *([moved] if (moved := rebased(task)) else [])]
    found = [laid for each in tasks for order in _orders(each) if (laid := _laid_out(each, order))]
    if not found:
        found = [laid for order in _OTHER_ORDERS if (laid := _laid_out(task, order))]
    return min(found, key=lambda laid: laid.price) if found else lay_out(task, "out of the way", "key by key")


def _orders(task: Task) -> tuple[Order, ...]:
    movable = any(piece.is_single and piece.source_keys[0] != piece.target for piece in task.layouts)
    return ("arrange first", "rename first, then in place") if movable else ("arrange first",)


def _laid_out(task: Task, order: Order) -> Laid | None:
    try:
        return lay_out(task, order)
    except Infeasible:
        return None


def _written(laid: Laid, task: Task, head: Mapping[str, object]) -> Written:
    entries = laid.entries(dict(task.table), task.want)
    names = table_names((line for draft in laid.drafts for line in draft.lines), entries)
    rules = [draft.values(named_lines(draft.lines, names)) for draft in laid.drafts]
    values = {**head, **({"vars": written_tables(entries, names)} if entries else {}), "rules": rules}
    return Written(values, write_recipe(values, make_remarks(laid.drafts)), len(rules))
