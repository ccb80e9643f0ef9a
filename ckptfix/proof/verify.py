"""Prove an adapted checkpoint: its values, a strict load, a forward pass, parity with the source model."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct
from torch import Tensor
from torch.nn import Module
from typing_extensions import TypedDict

from ckptfix.counts import count
from ckptfix.diff import compare
from ckptfix.execute.evaluate import to_bytes
from ckptfix.execute.receipt import read_receipt
from ckptfix.formats import Checkpoint
from ckptfix.planning import Plan
from ckptfix.proof.archive import check_archive
from ckptfix.proof.files import check_files
from ckptfix.proof.finding import Finding, fail, first_keys, one_line, untried
from ckptfix.proof.forward import Parity, all_finite, compare_outputs, run, sample_input
from ckptfix.proof.reload import reload
from ckptfix.proof.values import check_by_receipt, check_by_source, check_header
from ckptfix.targets.base import Target
from ckptfix.tensors import Shape


class ParityDocument(TypedDict):
    """How far the outputs of two models lie apart."""

    max_abs: float | None
    first_divergent_module: str | None


class VerifyDocument(TypedDict):
    """What `verify --json` prints."""

    schema_version: int
    ok: bool
    strict_load: bool
    values: bool | None
    forward: bool | None
    parity: ParityDocument | None
    untried: list[str]
    at_initialisation: list[str]
    problems: list[str]
    notes: list[str]


class Verification(Struct, frozen=True):
    """The result of each proof; None where it could not be tried. `problems` are failures, `notes` are not."""

    strict_load: bool
    values: bool | None
    forward: bool | None
    parity: Parity | None
    at_initialisation: tuple[str, ...]
    """Parameters of the target that still have the value that a fresh build gives them."""
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    remarks: tuple[str, ...] = ()
    """What should be known of how the files were read; in the document they come before the notes."""

    @property
    def ok(self) -> bool:
        """Whether nothing failed. Not all needs to have been tried."""
        return not self.problems

    @property
    def untried(self) -> tuple[str, ...]:
        """What could not be tried, of the proofs that are always wanted: a strict load always can."""
        proofs = {"values": self.values, "forward pass": self.forward}
        return tuple(name for name, passed in proofs.items() if passed is None)

    def to_json(self) -> VerifyDocument:
        """Give the document of `verify --json`."""
        parity: ParityDocument | None = None
        if self.parity is not None:
            parity = {
                "max_abs": self.parity.max_abs,
                "first_divergent_module": self.parity.first_divergent_module,
            }
        return {
            "schema_version": 1,
            "ok": self.ok,
            "strict_load": self.strict_load,
            "values": self.values,
            "forward": self.forward,
            "parity": parity,
            "untried": list(self.untried),
            "at_initialisation": list(self.at_initialisation),
            "problems": list(self.problems),
            "notes": [*self.remarks, *self.notes],
        }


class ParitySource(Struct, frozen=True):
    """The model that a checkpoint was converted from: its own checkpoint and architecture."""

    checkpoint: Checkpoint
    target: Target


def verify_checkpoint(
    checkpoint: Checkpoint,
    target: Target,
    *,
    plan: Plan | None = None,
    source: Checkpoint | None = None,
    parity: ParitySource | None = None,
    input_shape: Shape | None = None,
) -> Verification:
    """Prove a checkpoint against a target.

    With `plan` and `source`, every tensor is computed a second time and compared by bytes; without, the digests of
    the receipt are checked. The receipt's digest of the header is, either way. `input_shape` includes the batch:
    [1, 3, 224, 224].
    """
    loaded = reload(checkpoint)
    if plan is not None and source is not None:
        values = check_by_source(loaded.tensors, plan, source, target)
    else:
        values = check_by_receipt(checkpoint)
    strict, module = _load_strict(loaded.tensors, checkpoint, target)
    shape = _with_batch(input_shape, target)
    forward = _check_forward(module, shape) if module is not None else Finding(passed=None)
    found, compared = _check_parity(module, parity, shape) if parity is not None else (Finding(passed=None), None)
    written = (check_header(checkpoint), check_archive(checkpoint), check_files(checkpoint))
    findings = (values, *written, strict, forward, found)
    read = (checkpoint, source, parity.checkpoint if parity else None)
    return Verification(
        strict_load=bool(strict.passed),
        values=values.passed,
        forward=forward.passed,
        parity=compared,
        at_initialisation=_at_initialisation(module, checkpoint, target) if module is not None else (),
        problems=tuple(problem for finding in findings for problem in finding.problems),
        notes=(*((loaded.note,) if loaded.note else ()), *(note for finding in findings for note in finding.notes)),
        remarks=tuple(dict.fromkeys(remark for one in read if one is not None for remark in one.remarks)),
    )


def _with_batch(shape: Shape | None, target: Target) -> Shape | None:
    """Give the input's shape with its batch: the target's own, or one image where that is what the target takes."""
    if shape is None:
        return (1, *target.input_shape) if target.input_shape else None
    return (1, *shape) if target.input_shape and len(shape) == len(target.input_shape) else shape


def _load_strict(
    tensors: Mapping[str, Tensor], checkpoint: Checkpoint, target: Target
) -> tuple[Finding, Module | None]:
    """Build the target and load with `strict=True`; where only shapes are known, they decide."""
    diff = compare(checkpoint.manifest, target.manifest)
    if faults := [*diff.missing, *diff.unexpected, *diff.mismatched]:
        return fail(f"a strict load would fail on {count(len(faults), 'key')}: {first_keys(faults)}"), None
    if target.build is None:
        return Finding(passed=True, notes=(f"nothing was built: {target.not_buildable}",)), None
    module = target.build(1)
    on_meta = any(parameter.is_meta for parameter in module.parameters())
    try:
        module.load_state_dict(dict(tensors), strict=True, assign=on_meta)
    except RuntimeError as error:
        return fail(f"load_state_dict(strict=True): {' '.join(str(error).split())}"), None
    return Finding(passed=True), module


def _check_forward(module: Module, shape: Shape | None) -> Finding:
    if shape is None:
        return untried("no forward pass: the input's shape is unknown (give --input, as in --input 1,3,224,224)")
    try:
        outputs = run(module, sample_input(shape, module))
    except Exception as error:  # noqa: BLE001  a model may raise anything on an input that does not suit it
        return fail(f"the forward pass on {list(shape)} raised {one_line(error)}")
    if not all_finite(outputs):
        return fail(f"the forward pass on {list(shape)} gave no finite output")
    return Finding(passed=True)


def _check_parity(module: Module | None, source: ParitySource, shape: Shape | None) -> tuple[Finding, Parity | None]:
    if module is None or shape is None:
        return fail("parity needs a target that loads, and an input shape (--input)"), None
    tensors = reload(source.checkpoint).tensors
    original = source.target.must_build(1)
    try:
        original.load_state_dict(dict(tensors), strict=True)
        parity = compare_outputs(original, module, sample_input(shape, original))
    except Exception as error:  # noqa: BLE001  the two models are anybody's code
        return fail(f"parity could not be tried: {one_line(error)}"), None
    if parity.ok:
        return Finding(passed=True), parity
    apart = "cannot be compared" if parity.max_abs is None else f"differ by {parity.max_abs:.3g}"
    place = f", first in {parity.first_divergent_module}" if parity.first_divergent_module else ""
    return fail(f"the outputs of source and target {apart}{place}"), parity


def _at_initialisation(module: Module, checkpoint: Checkpoint, target: Target) -> tuple[str, ...]:
    """List parameters that a fresh build gives too, constants aside: they were never trained."""
    receipt = read_receipt(checkpoint)
    filled = receipt.filled if receipt else frozenset()
    loaded, fresh = module.state_dict(), target.must_build(0).state_dict()

    def is_fresh(key: str) -> bool:
        data = bytes(to_bytes(loaded[key]))  # not every dtype can be compared by `==`
        width = loaded[key].element_size()
        return key in filled or (data != data[:width] * (len(data) // width) and data == to_bytes(fresh[key]))

    return tuple(key for key, kind in target.manifest.kinds.items() if kind == "param" and is_fresh(key))
