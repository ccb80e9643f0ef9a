"""Execute a plan into a file: all offsets first, then the tensors one at a time, then the receipt."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from ckptfix._version import __version__
from ckptfix.digest import NO_DIGEST, hash_document
from ckptfix.execute.atomic import new_file
from ckptfix.execute.fill import Output, fill
from ckptfix.execute.finite import Count
from ckptfix.execute.moves import Move, move_of
from ckptfix.execute.receipt import Entry, Receipt
from ckptfix.execute.ties import refuse_conflicts
from ckptfix.execute.transfer import Meter
from ckptfix.execute.values import Values
from ckptfix.expr import Expr, Read
from ckptfix.formats import Checkpoint, output_format
from ckptfix.formats.base import FileLayout, Format, Reader, TensorRef
from ckptfix.planning import Plan
from ckptfix.targets.base import Target

if TYPE_CHECKING:
    from ckptfix.execute.resume import Companions

Progress = Callable[[int, int], None]
"""Called with the bytes written and the bytes in all."""


class Options(Struct, frozen=True):
    """How to write. With no `threads` the one that asks does all the work."""

    digests: bool = True
    sync: bool = True
    """Whether to wait until the disk has it."""
    threads: int = 1


DEFAULTS = Options()


class Written(Struct, frozen=True):
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
    content = _content(plan, checkpoint, companions)
    compared = {content.shared[key] for group in plan.tied_apart for key in group}
    metadata = {key: text for key, text in checkpoint.metadata.items() if key not in ("ckptfix", "format")}
    receipts = _Receipts(plan, content.shared, digests=options.digests)
    layout = _lay_out(form, content, companions, metadata, receipts.blank)
    outputs = [
        Output(
            key=key,
            expr=content.exprs[key],
            move=content.moves[key],
            offset=offset,
            meter=Meter(
                content.exprs[key].spec.nbytes,
                digest=options.digests or key in compared,
                checksum=layout.checksums,
            ),
        )
        for key, offset in layout.offsets.items()
    ]
    total = sum(output.expr.spec.nbytes for output in outputs)
    with Reader(checkpoint.stamps) as reader, new_file(out, replace=replace, sync=options.sync) as file:
        values = Values(content.tensors, reader, target, plan.origin_of)
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
        checksums = {output.key: output.meter.crc32 for output in outputs}
        outputs.clear()  # the receipt of many tensors takes as much
        refuse_conflicts(plan, lambda key: found[content.shared[key]])
        digests = found | filled.before
        moved = {key: digests[content.shared[key]] for key, move in content.moves.items() if move is not None}
        receipt = receipts.make(found, _source_digest(plan, moved, values.source_digests))
        receipt = receipt.seal({key: row.expr.spec for key, row in plan.outputs.items()}, {**layout.marks, **metadata})
        for offset, data in layout.seal(receipt.to_text(), checksums):
            file.write(offset, data)
        reader.check_unchanged()
    return Written(receipt, values.read, values.made, filled.cloned)


class _Content(Struct, frozen=True):
    """The tensors of a file: how each is made, of which tensors of the source, and which of them are one.

    `shared` maps each key to the first that holds the same tensor.
    """

    exprs: Mapping[str, Expr]
    tensors: Mapping[str, TensorRef]
    shared: Mapping[str, str]
    moves: Mapping[str, Move | None]


def _content(plan: Plan, checkpoint: Checkpoint, companions: Companions | None) -> _Content:
    exprs: dict[str, Expr] = {key: row.expr for key, row in plan.outputs.items()}
    shared = _shared_rows(plan, checkpoint)
    tensors = checkpoint.tensors
    if companions is not None:
        # An optimizer changes its moments in place: no two of them may share a storage.
        exprs |= companions.exprs
        shared |= {key: key for key in companions.exprs}
        tensors = {**tensors, **companions.tensors}
    return _Content(exprs, tensors, shared, {key: move_of(expr, tensors) for key, expr in exprs.items()})


def _lay_out(
    form: Format, content: _Content, companions: Companions | None, metadata: Mapping[str, str], receipt: str
) -> FileLayout:
    specs = {key: expr.spec for key, expr in content.exprs.items()}
    if companions is not None:
        return form.lay_out_frame(companions.frame, specs, content.shared, metadata, receipt)
    moved = {key: move.place for key, move in content.moves.items() if move is not None}
    places = {key: place for key, place in moved.items() if place is not None}
    return form.lay_out(specs, content.shared, metadata, receipt, places)


class _Receipts:
    """Makes the receipt of a plan."""

    def __init__(self, plan: Plan, shared: Mapping[str, str], *, digests: bool) -> None:
        self._plan = plan
        self._rows = plan.outputs
        self._filled = set(plan.filled)
        self._shared = shared
        self._digests = digests

    @property
    def blank(self) -> str:
        """The text of a receipt of the same length, before any digest is known."""
        return self.make(dict.fromkeys(self._rows, NO_DIGEST), NO_DIGEST).to_text()

    def make(self, found: Mapping[str, str], source: str) -> Receipt:
        """Fill the digests in: those found by key, and the source's."""
        digest = {key: found[self._shared[key]] if self._digests else None for key in self._rows}
        entries = {
            key: Entry("filled" if key in self._filled else "loaded", row.rule, digest[key])
            for key, row in self._rows.items()
        }
        recipe = self._plan.recipe.digest
        return Receipt(__version__, recipe, source if self._digests else None, self._plan.dtype, entries)


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
