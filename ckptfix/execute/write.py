"""Execute a plan into a file: all offsets first, then the tensors one at a time, then the receipt."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ckptfix._version import __version__
from ckptfix.digest import NO_DIGEST, hash_document
from ckptfix.execute.atomic import new_file
from ckptfix.execute.fill import Output, fill
from ckptfix.execute.finite import Count
from ckptfix.execute.moves import move_of
from ckptfix.execute.receipt import Entry, Receipt
from ckptfix.execute.ties import refuse_conflicts
from ckptfix.execute.transfer import Meter
from ckptfix.execute.values import Values
from ckptfix.expr import Expr, Read
from ckptfix.formats import Checkpoint, output_format
from ckptfix.formats.base import Format, Reader
from ckptfix.planning import Plan
from ckptfix.targets.base import Target

if TYPE_CHECKING:
    from ckptfix.execute.resume import Companions

Progress = Callable[[int, int], None]
"""Called with the bytes written and the bytes in all."""


@dataclass(frozen=True)
class Options:
    """How to write. With no `threads` the one that asks does all the work."""

    digests: bool = True
    sync: bool = True
    """Whether to wait until the disk has it."""
    threads: int = 1


DEFAULTS = Options()


@dataclass(frozen=True)
class Written:
    """What a written file carries, and how many NaN and infinities there were in what was computed.

    `read` counts in what was cast or computed with, `made` in what was made of it. Tensors that are only moved have as
    many as before and are not looked at. `cloned` are the bytes that the file shares with the source.
    """

    receipt: Receipt
    read: Count
    made: Count
    cloned: int = 0


def write(
    plan: Plan,
    checkpoint: Checkpoint,
    target: Target,
    out: Path,
    *,
    form: Format | None = None,
    replace: bool = False,
    options: Options = DEFAULTS,
    companions: Companions | None = None,
    progress: Progress = lambda done, total: None,
) -> Written:
    """Write the rows of the plan that fit the target, and what goes with them. `form` is the name's own by default.

    Raises UnsupportedOutput, OutputExists, WriteFailed, TiedConflict, NonFinite, and what reading the source raises.
    The output is not touched unless all went well.
    """
    form = form or output_format(out)
    rows = plan.outputs
    made_anew = set(plan.filled)
    shared = _shared_rows(plan, checkpoint)
    compared = {shared[key] for group in plan.tied_apart for key in group}

    def receipt(found: Mapping[str, str], source: str) -> Receipt:
        entries = {
            key: Entry(
                "filled" if key in made_anew else "loaded", row.rule, found[shared[key]] if options.digests else None
            )
            for key, row in rows.items()
        }
        return Receipt(__version__, plan.recipe.digest, source if options.digests else None, plan.dtype, entries)

    blank = receipt(dict.fromkeys(rows, NO_DIGEST), NO_DIGEST).to_text()
    metadata = {key: text for key, text in checkpoint.metadata.items() if key not in ("ckptfix", "format")}
    exprs: dict[str, Expr] = {key: row.expr for key, row in rows.items()}
    tensors = checkpoint.tensors
    if companions is not None:
        # An optimizer changes its moments in place: no two of them may share a storage.
        exprs |= companions.exprs
        shared |= {key: key for key in companions.exprs}
        tensors = {**tensors, **companions.tensors}
    specs = {key: expr.spec for key, expr in exprs.items()}
    moves = {key: move_of(expr, tensors) for key, expr in exprs.items()}
    if companions is None:
        places = {key: move.place for key, move in moves.items() if move is not None and move.place is not None}
        layout = form.lay_out(specs, shared, metadata, blank, places)
    else:
        layout = form.lay_out_frame(companions.frame, specs, shared, metadata, blank)
    described = {**layout.marks, **metadata}
    outputs = [
        Output(
            key,
            exprs[key],
            moves[key],
            offset,
            Meter(specs[key].nbytes, digest=options.digests or key in compared, checksum=layout.checksums),
        )
        for key, offset in layout.offsets.items()
    ]
    total = sum(specs[key].nbytes for key in layout.offsets)
    with Reader(checkpoint.stamps) as reader, new_file(out, replace=replace, sync=options.sync) as file:
        values = Values(tensors, reader, target, plan.origin_of)
        filled = fill(
            file,
            layout.nbytes,
            outputs,
            values,
            reader,
            threads=options.threads,
            progress=lambda done: progress(done, total),
        )
        found = {output.key: output.meter.digest for output in outputs}
        refuse_conflicts(plan, lambda key: found[shared[key]])
        digests = found | filled.before
        moved = {key: digests[shared[key]] for key, move in moves.items() if move is not None}
        done_receipt = receipt(found, _source_digest(plan, moved, values.source_digests))
        done_receipt = done_receipt.seal({key: row.expr.spec for key, row in rows.items()}, described)
        checksums = {output.key: output.meter.crc32 for output in outputs}
        for offset, data in layout.seal(done_receipt.to_text(), checksums):
            file.write(offset, data)
        reader.check_unchanged()
    return Written(done_receipt, values.read, values.made, filled.cloned)


def _shared_rows(plan: Plan, checkpoint: Checkpoint) -> dict[str, str]:
    """Map each output key to the first key that holds the same tensor: one expression, or aliases of one view."""
    alias = {key: group[0] for group in checkpoint.aliases for key in group}
    first: dict[Expr, str] = {}
    shared: dict[str, str] = {}
    for key, row in plan.outputs.items():
        expr = row.expr
        if isinstance(expr, Read):
            expr = Read(alias.get(expr.key, expr.key), expr.spec)
        shared[key] = first.setdefault(expr, key)
    return shared


def _source_digest(plan: Plan, moved: Mapping[str, str], computed: Mapping[str, str]) -> str:
    """Hash the source's header, what of it was moved (by output key), and the tensors that were computed with."""
    header = {key: str(spec) for key, spec in plan.have.items()}
    return hash_document([header, dict(moved), dict(computed)])
