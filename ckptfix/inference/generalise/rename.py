"""Write renames as pairs of a pattern and a new key: one map, or two where exceptions go first."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence

from ckptfix.inference.generalise.cover import cover
from ckptfix.inference.generalise.draft import Reach
from ckptfix.inference.generalise.line import Line, bits_of, union_of
from ckptfix.inference.generalise.numbers import number_lines, read_record, split_line
from ckptfix.inference.generalise.special import special_moves
from ckptfix.inference.generalise.tables import Tables, tables_of
from ckptfix.inference.generalise.trial import Trial
from ckptfix.inference.generalise.widen import widened
from ckptfix.inference.generalise.words import looked_up

_RULE_PRICE = 40
_ATTEMPTS = 4
_FEW_PARTS = 4

Steps = list[list[Line]]


def rename_lines(
    keys: Collection[str], moves: Mapping[str, str], classes: Sequence[int], tables: Tables, reach: Reach
) -> Steps:
    """Give the pairs of each rename rule, in order.

    There is one rule for each class of the moves where these can go one after the other, and more where what is an
    exception goes before what then holds for all the rest.
    """
    trial = Trial(keys, moves, tables)
    if reach == "key by key":
        return [list(_written_out([], trial.wanted, trial))]
    steps = _shortest(trial)
    for special in special_moves(moves):
        parted = [step for part in trial.parts(special) for step in _shortest(part)]
        if _price(parted, trial) < _price(steps, trial) and trial.leads(parted):
            steps = parted
    apart = [part for step in steps for part in _by_class(step, classes)]
    return apart if trial.leads(apart) else steps


def _shortest(trial: Trial) -> Steps:
    """Give the rules that cost the least of those found in several ways."""
    base = _base_lines(trial)
    trial.tables.count_uses(base)
    lines = base + widened(base)
    choices: list[Steps] = [[_exactly(lines, trial.wanted, trial)]]
    lines += trial.narrowed(lines)
    choices.append([_exactly(lines, trial.wanted, trial)])
    choices.append(_in_two_steps(lines, trial))
    words = looked_up(base, trial.tables)
    if words:
        trial.tables.count_uses(base + words)
        choices.append([_with_words(lines + words + widened(words), trial)])
    return min(choices, key=lambda choice: _price(choice, trial))


def _base_lines(trial: Trial) -> list[Line]:
    """Write lines with placeholders for numbers only; those that match too much stand beside narrower ones."""
    records = [read_record(bit, trial.pairs[bit]) for bit in bits_of(trial.wanted)]
    lines = number_lines(records, 1, trial.tables)
    found = {line.sides: line for line in lines}
    for line in lines:
        parts = list(split_line(line, records, 1, trial.tables))
        if trial.exact(line):
            parts = parts if len(parts) <= _FEW_PARTS else []
        else:
            parts += trial.narrowed([line])
        found |= {part.sides: part for part in parts if part.sides not in found}
    return list(found.values())


def _exactly(lines: Sequence[Line], wanted: int, trial: Trial) -> list[Line]:
    """Choose lines that do nothing but what they should; what none covers is written out."""
    chosen = cover(lines, wanted, trial.exact, trial.tables.price)
    return chosen + list(_written_out(chosen, wanted, trial))


def _written_out(chosen: Sequence[Line], wanted: int, trial: Trial) -> Iterator[Line]:
    for bit in bits_of(wanted & ~union_of(chosen)):
        key, new = trial.pairs[bit]
        yield Line((key,), (new,), 1 << bit)


def _in_two_steps(lines: Sequence[Line], trial: Trial) -> Steps:
    """Choose wider lines, and before them a rule for what they would spoil.

    A wide line may cost more in exceptions than it saves, so each is left out in turn to see. Gives no steps where
    two do not lead to the new keys.
    """
    best = _two_steps(lines, trial)
    for _ in range(_ATTEMPTS):
        wide = best[1] if len(best) > 1 else []
        others = [_two_steps([line for line in lines if line.sides != left_out.sides], trial) for left_out in wide]
        better = min(others, key=lambda steps: _price(steps, trial), default=best)
        if _price(better, trial) >= _price(best, trial):
            break
        best = better
    return best if trial.leads(best) else []


def _two_steps(lines: Sequence[Line], trial: Trial) -> Steps:
    chosen = cover(lines, trial.wanted, trial.loose, trial.price)
    later = [line for line in chosen if trial.verdict(line).spoilt]
    spoilt = 0
    for line in later:
        spoilt |= trial.verdict(line).spoilt or 0
    first = _exactly(lines, trial.wanted & ~union_of(later) | spoilt, trial)
    later = [line for line in later if line.covers & ~union_of(first)]
    return [step for step in (first, later) if step]


def _with_words(lines: Sequence[Line], trial: Trial) -> list[Line]:
    """Choose lines, leaving out each table in turn that is not worth writing down."""
    best = _exactly(lines, trial.wanted, trial)
    for table in dict.fromkeys(name for line in best for name in tables_of(line)):
        lines_without = [line for line in lines if table not in tables_of(line)]
        other = _exactly(lines_without, trial.wanted, trial)
        if _price([other], trial) < _price([best], trial):
            best, lines = other, lines_without
    return best


def _by_class(lines: Sequence[Line], classes: Sequence[int]) -> Steps:
    """Part lines by the class of the least sure of their moves."""
    parts: dict[int, list[Line]] = defaultdict(list)
    for line in lines:
        parts[max(classes[bit] for bit in bits_of(line.covers))].append(line)
    return [parts[number] for number in sorted(parts)]


def _price(steps: Steps, trial: Trial) -> float:
    """What rules cost a reader; without end where there are none."""
    if not steps:
        return float("inf")
    return trial.tables.total(line for step in steps for line in step) + _RULE_PRICE * len(steps)
