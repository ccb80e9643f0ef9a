"""Are the tensors of a file the ones that the plan promised?"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ckptfix.counts import count
from ckptfix.digest import hash_chunks
from ckptfix.execute.evaluate import to_bytes
from ckptfix.execute.receipt import read_receipt
from ckptfix.formats import Checkpoint, Reader
from ckptfix.planning import Plan
from ckptfix.proof.finding import Finding, fail, first_keys, untried
from ckptfix.proof.recompute import recompute
from ckptfix.proof.reload import reload
from ckptfix.targets.base import Target


def check_by_source(tensors: Mapping[str, Tensor], plan: Plan, source: Checkpoint, target: Target) -> Finding:
    """Compare every tensor, byte for byte, with what plain torch makes of the source."""
    again = reload(source)
    built: dict[int, Mapping[str, Tensor]] = {}

    def initial(seed: int) -> Mapping[str, Tensor]:
        if seed not in built:
            built[seed] = target.must_build(seed).state_dict()
        return built[seed]

    problems: list[str] = []
    if not plan.is_complete:
        problems.append("the recipe is not complete for this source and target")
    wrong = [
        key
        for key, row in plan.outputs.items()
        if key not in tensors or not _same_bytes(tensors[key], recompute(row.expr, again.tensors, initial))
    ]
    if wrong:
        problems.append(f"{count(len(wrong), 'tensor')} unlike what the source gives: {first_keys(wrong)}")
    surplus = [key for key in tensors if key not in plan.outputs]
    if surplus:
        problems.append(f"{count(len(surplus), 'tensor')} not of the plan: {first_keys(surplus)}")
    return Finding(not problems, tuple(problems), (again.note,) if again.note else ())


def check_by_receipt(checkpoint: Checkpoint) -> Finding:
    """Compare every tensor with the digest that the file's own receipt keeps of it."""
    receipt = read_receipt(checkpoint)
    if receipt is None:
        return untried("no receipt: the values were not checked (give --source and -r)")
    if any(entry.blake3 is None for entry in receipt.entries.values()):
        return untried("the receipt has no digests: the values were not checked (give --source and -r)")
    problems: list[str] = []
    with Reader(checkpoint.stamps) as reader:
        wrong = [
            key
            for key, ref in checkpoint.tensors.items()
            if key in receipt.entries and hash_chunks(reader.passing(ref)) != receipt.entries[key].blake3
        ]
    if wrong:
        problems.append(f"{count(len(wrong), 'tensor')} unlike the receipt's digest: {first_keys(wrong)}")
    return Finding(not problems, tuple(problems))


def check_header(checkpoint: Checkpoint) -> Finding:
    """Compare names, shapes, dtypes, metadata and the receipt's own words with the receipt's digest of them."""
    receipt = read_receipt(checkpoint)
    if receipt is None:
        return Finding(passed=None)
    strange = sorted(checkpoint.tensors.keys() ^ receipt.entries.keys())
    if strange:
        return fail(
            f"{count(len(strange), 'tensor')} in the file or in its receipt, not in both: {first_keys(strange)}"
        )
    if receipt.seal(checkpoint.manifest, checkpoint.metadata) != receipt:
        return fail("a shape, a dtype, the metadata or the receipt is not what was written: its digest differs")
    return Finding(passed=True)


def _same_bytes(left: Tensor, right: Tensor) -> bool:
    return left.dtype == right.dtype and left.shape == right.shape and bool(to_bytes(left) == to_bytes(right))
