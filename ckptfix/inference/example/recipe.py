"""From what an example shows to a recipe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ckptfix.counts import count
from ckptfix.errors import InvalidCall
from ckptfix.formats import Checkpoint
from ckptfix.inference.example import find_links
from ckptfix.inference.example.result import ExampleResult, Taken
from ckptfix.inference.generalise.selection import patterns_of
from ckptfix.inference.link import Link, Open
from ckptfix.inference.settle import Answer
from ckptfix.inference.suggestion import Suggestion, write_suggestion
from ckptfix.tensors import DType, Manifest

Rule = dict[str, object]


def suggest_by_example(source: Checkpoint, example: Checkpoint, want: Manifest, description: str) -> Suggestion:
    """Learn a recipe from the values of a checkpoint that was already converted; it serves other sizes too.

    Raises InvalidCall for an example that is not of this target or not of this source, and what reading raises.
    """
    if want.tensors.keys().isdisjoint(example.manifest):
        first, wanted = next(iter(example.manifest)), next(iter(want), "")
        raise InvalidCall(
            f"the example has none of the target's keys: '{first}' is its first, '{wanted}' the target's",
            where=str(example.path),
            hint="--example takes the weights as they are converted for TARGET",
        )
    found = find_links(source, example)
    if not (found.links or found.taken):
        raise InvalidCall(
            f"the example has no values of {source.path.name}",
            where=str(example.path),
            hint="--example takes the same weights, converted",
        )
    return write_suggestion(
        _account(found, example.manifest, want),
        source.manifest,
        example.manifest,
        description,
        last=[
            *({"op": "fill", "keys": key, "value": value, "when": "missing"} for key, value in found.fills.items()),
            *(_take(taken, source.manifest) for taken in found.taken),
            *_casts(found, example.manifest),
        ],
        numbers=found.fills,
        select=source.choice,
    )


def _account(found: ExampleResult, example: Manifest, want: Manifest) -> Answer:
    """Say what is open: what values do not tell, and where the example is not what the target wants."""
    taken = [
        Link.rename(taken.source, taken.target, why="rows of it", evidence=frozenset({"values"}))
        for taken in found.taken
    ]
    extra = [key for key in example if key not in want]
    shown = ", ".join(extra[:3]) + (", ..." if len(extra) > 3 else "")
    lacking = [f"the target lacks {count(len(extra), 'key')} that the example has: {shown}"] if extra else []
    unresolved = dict(found.unexplained)
    unresolved |= {key: Open("the example lacks it") for key in want if key not in example}
    unresolved |= {
        key: Open(f"the example has the shape {list(spec.shape)}, the target {list(want[key].shape)}")
        for key, spec in example.items()
        if key in want and want[key].shape != spec.shape
    }
    return Answer(
        [*found.links, *taken],
        copied=dict(found.copies),
        unresolved=unresolved,
        unused=list(found.unused),
        notes=[*found.notes, *lacking],
    )


def _take(taken: Taken, have: Manifest) -> Rule:
    names = [f"a{axis}" for axis in range(len(have[taken.source].shape))]
    rule: Rule = {"op": "take", "keys": taken.target, "layout": " ".join(names)}
    return rule | {"axis": names[taken.axis], "index": list(taken.rows)}


def _casts(found: ExampleResult, example: Manifest) -> Iterator[Rule]:
    """Cast to each dtype of the example that some source lacks, by the shortest patterns.

    Patterns may match what has the dtype anyway, and integers, which a cast leaves alone.
    """
    made = [key for link in found.links for key in link.target_keys]
    made += [*(taken.target for taken in found.taken), *found.copies, *found.fills]
    dtypes: Mapping[str, DType] = {key: example[key].dtype for key in made if example[key].dtype.kind == "float"}
    for dtype in sorted(set(found.casts.values())):
        keys = patterns_of([key for key in dtypes if dtypes[key] is dtype], dtypes.keys(), "general")
        yield {"op": "cast", "keys": keys[0] if len(keys) == 1 else keys, "dtype": str(dtype)}
