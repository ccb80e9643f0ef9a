"""Execute a plan into a file: all offsets first, then the tensors one at a time, then the receipt."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ckptfix._version import __version__
from ckptfix.digest import NO_DIGEST, hash_document
from ckptfix.execute.atomic import new_file
from ckptfix.execute.finite import Count
from ckptfix.execute.receipt import Entry, Receipt
from ckptfix.execute.resume import Companions
from ckptfix.execute.ties import refuse_conflicts
from ckptfix.execute.values import Values
from ckptfix.expr import Expr, Read, sources
from ckptfix.formats import Checkpoint, output_format
from ckptfix.formats.base import Format, Reader
from ckptfix.planning import Plan
from ckptfix.targets.base import Target

Progress = Callable[[int, int], None]
"""Called with the bytes written and the bytes in all."""


@dataclass(frozen=True)
class Written:
    """What a written file carries, and how many NaN and infinities there were in what was computed.

    `read` counts in the source tensors that were computed with, `made` in the tensors computed of them. Tensors that
    are only moved have as many as before and are not looked at.
    """

    receipt: Receipt
    read: Count
    made: Count


def write(
    plan: Plan,
    checkpoint: Checkpoint,
    target: Target,
    out: Path,
    *,
    form: Format | None = None,
    replace: bool = False,
    digests: bool = True,
    companions: Companions | None = None,
    progress: Progress = lambda done, total: None,
) -> Written:
    """Write the rows of the plan that fit the target, and what goes with them. `form` is the name's own by default.

    Raises UnsupportedOutput, OutputExists, WriteFailed, TiedConflict, NonFinite, and what reading the source raises.
    The output is not touched unless all went well.
    """
    form = form or output_format(out)
    rows = plan.outputs
    filled = set(plan.filled)
    shared = _shared_rows(plan, checkpoint)
    compared = {shared[key] for group in plan.tied_apart for key in group}

    def receipt(found: Mapping[str, str], source: str) -> Receipt:
        entries = {
            key: Entry("filled" if key in filled else "loaded", row.rule, found[shared[key]] if digests else None)
            for key, row in rows.items()
        }
        return Receipt(__version__, plan.recipe.digest, source if digests else None, plan.dtype, entries)

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
    if companions is None:
        layout = form.lay_out(specs, shared, metadata, blank)
    else:
        layout = form.lay_out_frame(companions.frame, specs, shared, metadata, blank)
    described = {**layout.marks, **metadata}
    total = sum(specs[key].nbytes for key in layout.offsets)
    found: dict[str, str] = {}
    checksums: dict[str, int] = {}
    done = 0
    with Reader(checkpoint.stamps) as reader, new_file(out, replace=replace) as file:
        values = Values(tensors, reader, target, plan.origin_of)
        file.allocate(layout.nbytes)
        for key, offset in layout.offsets.items():
            chunks = values.chunks(key, exprs[key])
            meter = _Meter(chunks, digest=digests or key in compared, checksum=layout.checksums)
            for chunk in meter:
                file.write(offset, chunk)
                offset += len(chunk)
                done += len(chunk)
                progress(done, total)
            found[key] = meter.digest
            checksums[key] = meter.crc32
            if isinstance(expr := exprs[key], Read):
                values.source_digests[expr.key] = meter.digest
        refuse_conflicts(plan, lambda key: found[shared[key]])
        done_receipt = receipt(found, _source_digest(plan, checkpoint, values.source_digests))
        done_receipt = done_receipt.seal({key: row.expr.spec for key, row in rows.items()}, described)
        for offset, data in layout.seal(done_receipt.to_text(), checksums):
            file.write(offset, data)
        reader.check_unchanged()
    return Written(done_receipt, values.read, values.made)


class _Meter:
    """Passes chunks on and computes what is asked for of them."""

    def __init__(self, chunks: Iterator[bytes | memoryview], *, digest: bool, checksum: bool) -> None:
        from blake3 import blake3

        self._chunks = chunks
        self._hasher = blake3() if digest else None
        self._checksum = checksum
        self.crc32 = 0

    def __iter__(self) -> Iterator[bytes | memoryview]:
        for chunk in self._chunks:
            if self._hasher is not None:
                self._hasher.update(chunk)
            if self._checksum:
                self.crc32 = zlib.crc32(chunk, self.crc32)
            yield chunk

    @property
    def digest(self) -> str:
        """The BLAKE3 digest of what has passed; zeros where none was asked for."""
        return self._hasher.hexdigest() if self._hasher else NO_DIGEST


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


def _source_digest(plan: Plan, checkpoint: Checkpoint, digests: Mapping[str, str]) -> str:
    """Hash the source's header and the tensors that were used. Of aliases, one may have been read for all."""
    known = dict(digests)
    for group in checkpoint.aliases:
        known |= dict.fromkeys(group, next((digests[key] for key in group if key in digests), NO_DIGEST))
    used = {key for row in plan.outputs.values() for key in sources(row.expr)}
    header = {key: spec.to_json() for key, spec in plan.have.items()}
    return hash_document([header, {key: known[key] for key in sorted(used)}])
