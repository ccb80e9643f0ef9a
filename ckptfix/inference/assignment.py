"""The best one-to-one assignment, and how far the next best is from it."""

from __future__ import annotations

from collections.abc import Mapping

_FORBIDDEN = 1e6

LEAST_MARGIN = 0.6
"""What the next best choice must lose by, for the best to be certain."""

Pair = tuple[int, int]


def assign(scores: Mapping[Pair, float]) -> dict[int, int]:
    """Pair columns with rows so that the sum of the scores is greatest; a pair without a score is never made.

    Returns row by column. Pairs that no score connects are solved apart, so that the cost follows the largest group.
    """
    rows: dict[int, set[int]] = {}
    columns: dict[int, set[int]] = {}
    for row, column in scores:
        rows.setdefault(row, set()).add(column)
        columns.setdefault(column, set()).add(row)
    assigned: dict[int, int] = {}
    seen: set[int] = set()
    for start in columns:
        if start in seen:
            continue
        group_columns, group_rows = {start}, set[int]()
        pending = [start]
        while pending:
            for row in columns[pending.pop()] - group_rows:
                group_rows.add(row)
                for column in rows[row] - group_columns:
                    group_columns.add(column)
                    pending.append(column)
        seen |= group_columns
        assigned |= _solve(sorted(group_rows), sorted(group_columns), scores)
    return assigned


def _solve(rows: list[int], columns: list[int], scores: Mapping[Pair, float]) -> dict[int, int]:
    """Solve one group: shortest augmenting paths (Jonker and Volgenant 1987), on costs."""
    if len(columns) > len(rows):
        turned = _solve(columns, rows, {(column, row): score for (row, column), score in scores.items()})
        return {row: column for column, row in turned.items()}
    size, width = len(columns), len(rows)
    cost = [[-scores.get((row, column), -_FORBIDDEN) for row in rows] for column in columns]
    u, v = [0.0] * (size + 1), [0.0] * (width + 1)
    match, way = [0] * (width + 1), [0] * (width + 1)
    for i in range(1, size + 1):
        match[0], j0 = i, 0
        least, used = [float("inf")] * (width + 1), [False] * (width + 1)
        while match[j0]:
            used[j0] = True
            i0, delta, j1 = match[j0], float("inf"), 0
            line = cost[i0 - 1]
            for j in range(1, width + 1):
                if not used[j]:
                    current = line[j - 1] - u[i0] - v[j]
                    if current < least[j]:
                        least[j], way[j] = current, j0
                    if least[j] < delta:
                        delta, j1 = least[j], j
            for j in range(width + 1):
                if used[j]:
                    u[match[j]] += delta
                    v[j] -= delta
                else:
                    least[j] -= delta
            j0 = j1
        while j0:
            match[j0] = match[way[j0]]
            j0 = way[j0]
    pairs = {columns[match[j] - 1]: rows[j - 1] for j in range(1, width + 1) if match[j]}
    return {column: row for column, row in pairs.items() if (row, column) in scores}


class Board:
    """The scores of all pairs, by row and by column, and who is paired with whom."""

    def __init__(self, scores: Mapping[tuple[int, int], float], pairs: Mapping[int, int]) -> None:
        self.scores = scores
        self.pairs = pairs
        self.taken = {row: column for column, row in pairs.items()}
        self.rows: dict[int, list[int]] = {}
        self.columns: dict[int, list[int]] = {}
        for row, column in scores:
            self.rows.setdefault(column, []).append(row)
            self.columns.setdefault(row, []).append(column)

    def is_alone(self, i: int, j: int) -> bool:
        """Whether neither of a pair fits anything else."""
        return len(self.rows[j]) == len(self.columns[i]) == 1

    def margin(self, i: int, j: int) -> tuple[float, list[int]]:
        """Give the least that is lost by another choice for a target, and the sources that would lose little."""
        margin = 3.0
        rivals: list[int] = []
        for row in self.rows[j]:
            if row == i:
                continue
            lost = self.scores[i, j] - self.scores[row, j]
            if row in self.taken:
                other = self.taken[row]
                lost += self.scores[row, other] - self.scores.get((i, other), -1.0)
            if lost < LEAST_MARGIN:
                rivals.append(row)
            margin = min(margin, lost)
        free = [self.scores[i, column] for column in self.columns[i] if column != j and column not in self.pairs]
        return min([margin, *(self.scores[i, j] - score for score in free)]), rivals
