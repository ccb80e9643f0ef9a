"""Decide what names and shapes leave ambiguous by what both models do with the same input."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace
from torch import Tensor
from torch.nn import Module

from ckptfix.errors import InvalidCall
from ckptfix.execute.evaluate import evaluate
from ckptfix.formats import Checkpoint, wrapper_prefixes
from ckptfix.inference.behaviour.observe import MOST_FORWARDS, NotRun, Reading, Twins
from ckptfix.inference.behaviour.options import list_options
from ckptfix.inference.behaviour.questions import ask, module_of
from ckptfix.inference.behaviour.search import Search, Verdict
from ckptfix.inference.generalise import generalise
from ckptfix.inference.link import Evidence, Link
from ckptfix.inference.settle import Answer
from ckptfix.inference.suggestion import Suggestion, settle_without, write_suggestion
from ckptfix.planning import make_plan
from ckptfix.proof.finding import one_line
from ckptfix.proof.forward import sample_input
from ckptfix.proof.reload import reload
from ckptfix.recipe import load_recipe
from ckptfix.targets.base import Target
from ckptfix.tensors import Manifest, Shape

_INPUT = "give --input, its batch included: 1,3,224,224, or 1,16 for 16 tokens"


def decide(
    answer: Answer, source: Checkpoint, source_target: Target, target: Target, input_shape: Shape | None = None
) -> Answer:
    """Give the answer with links for what behaviour decides of its ambiguous keys; the rest stays ambiguous.

    An option is accepted where the outputs agree to float tolerance, and with every other one lie far apart.
    `input_shape` includes the batch; the target's own is the default. Raises InvalidCall where there is neither, and
    TargetBuildError where one of the two cannot be built.
    """
    questions = ask(answer.ambiguous, source.manifest, target.manifest, list_options)
    questions = [question for question in questions if question.options]
    if not questions:
        note = "nothing is open that running the models could decide, so they were not run: try verify --parity"
        return replace(answer, notes=[*answer.notes, note])
    shape = _with_batch(input_shape, source_target.input_shape or target.input_shape)
    if shape is None:
        raise InvalidCall("the input's shape is unknown", where=target.text, hint=_INPUT)
    maker = _Maker(source.manifest, target, reload(source).tensors)
    original, module = source_target.must_build(0).float(), target.must_build(0).float()
    try:
        _load_source(original, maker.tensors)
        twins = Twins(original, module, sample_input(shape, original), _counterparts(answer.links, source.manifest))
        twins.load(maker.make(answer.links, answer.copied))
        search = Search(twins, questions, maker.make)
        choice = search.climb()
        reading = search.read(choice)
        verdict = search.judge(choice) if reading.is_equal else Verdict()
    except NotRun as error:
        return replace(answer, notes=[*answer.notes, f"behaviour decides nothing: {error}"])
    return _conclude(answer, verdict, source.manifest, _remark(twins, reading))


def suggest_by_behaviour(
    source: Checkpoint,
    source_target: Target,
    target: Target,
    description: str,
    input_shape: Shape | None = None,
    without: Collection[Evidence] = (),
) -> Suggestion:
    """Infer a recipe from names and shapes, and then by `decide`. Raises what `decide` raises."""
    known = settle_without(source.manifest, target.manifest, without)
    answer = decide(known, source, source_target, target, input_shape)
    return write_suggestion(answer, source.manifest, target.manifest, description, select=source.choice)


def _with_batch(shape: Shape | None, sample: Shape | None) -> Shape | None:
    """Give the shape with its batch: that of one sample where that is given, or where nothing is."""
    if sample is not None and (shape is None or len(shape) == len(sample)):
        return (1, *(shape or sample))
    return shape


def _load_source(module: Module, tensors: Mapping[str, Tensor]) -> None:
    """Load the source into its own architecture. Raises NotRun where that is not strictly possible."""
    prefix = "".join(wrapper_prefixes(tensors))
    try:
        module.load_state_dict({key.removeprefix(prefix): tensor for key, tensor in tensors.items()}, strict=True)
    except RuntimeError as error:
        raise NotRun(f"the source does not load into the architecture given for it: {one_line(error)}") from error


def _counterparts(links: Iterable[Link], have: Manifest) -> dict[str, str]:
    """Map the modules of the target to those of the source whose parameters they get, one to one."""
    prefix = "".join(wrapper_prefixes(have))
    found: dict[str, set[str]] = {}
    for link in links:
        if link.pair is not None:
            source, target = link.pair
            found.setdefault(module_of(target), set()).add(module_of(source.removeprefix(prefix)))
    return {path: others.pop() for path, others in found.items() if len(others) == 1}


class _Maker(Struct, frozen=True):
    """Makes the target's tensors that links say, out of the source's."""

    have: Manifest
    target: Target
    tensors: Mapping[str, Tensor]

    def make(self, links: Sequence[Link], copied: Mapping[str, str] | None = None) -> dict[str, Tensor]:
        """Carry the links out; `copied` maps a target key to the one that it repeats."""
        have = Manifest({key: self.have[key] for link in links for key in link.source_keys})
        want = Manifest({key: self.target.manifest[key] for link in links for key in link.target_keys})
        written = generalise(links, have, want, filled=(), copied={}, dropped=(), source={}, description="")
        plan = make_plan(load_recipe(written.values), have, want)
        plan.raise_for_errors()
        made = {key: evaluate(row.expr, self.tensors.__getitem__, self._initial) for key, row in plan.outputs.items()}
        return made | {key: made[first] for key, first in (copied or {}).items() if first in made}

    def _initial(self, seed: int) -> Mapping[str, Tensor]:
        return self.target.must_build(seed).state_dict()


def _remark(twins: Twins, reading: Reading) -> str:
    """Say what was measured."""
    passes = f"{twins.forwards} forward passes"
    if twins.forwards >= MOST_FORWARDS:
        passes += ", the most that are made"
    if reading.is_equal:
        return f"behaviour: with what is known and chosen the outputs differ by {reading.gap:.1e} ({passes})"
    apart = f"differ by {reading.gap:.1e}" if math.isfinite(reading.gap) else "cannot be compared"
    place = f", first in {reading.divergent}" if reading.divergent else ""
    return f"behaviour decides nothing: at best the outputs {apart}{place} ({passes})"


def _conclude(answer: Answer, verdict: Verdict, have: Manifest, note: str) -> Answer:
    links = [*answer.links, *verdict.links]
    made = {key for link in links for key in link.target_keys}
    ambiguous = [
        replace(doubt, why=f"{doubt.why}; {verdict.open[doubt.target]}") if doubt.target in verdict.open else doubt
        for doubt in answer.ambiguous
        if doubt.target not in made
    ]
    used = {key for link in links for key in link.source_keys}
    used |= {key for doubt in ambiguous for key in doubt.candidates}
    unused = [key for key in have if key not in used]
    return replace(answer, links=links, ambiguous=ambiguous, unused=unused, notes=[*answer.notes, note])
