"""Prepare a checkpoint: adapt it, prove it, and only then let it be seen."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from ckptfix import api
from ckptfix._version import __version__
from ckptfix.digest import hash_chunks, hash_document
from ckptfix.errors import InvalidCall, OutputExists, TrainingFailed, VerificationFailed, WriteFailed
from ckptfix.execute.atomic import refuse_existing, write_whole
from ckptfix.execute.receipt import Receipt, read_receipt
from ckptfix.expr import Initial, leaves
from ckptfix.formats import output_format
from ckptfix.formats.base import CHUNK, File
from ckptfix.job import Job, open, prepare_job  # noqa: A004
from ckptfix.output import Adapted, refuse_source
from ckptfix.pipeline.step import FinetuneCheck, Step, VerifyCheck, read_step
from ckptfix.proof.verify import Verification
from ckptfix.report.finetune import write_finetune

if TYPE_CHECKING:
    from ckptfix.proof.training.finetune import Progress
    from ckptfix.proof.training.report import FinetuneReport

MANIFEST = "manifest.json"


class Prepared(Struct, frozen=True):
    """A checkpoint that passed its checks. `cached` says that this run found it done."""

    output: Path
    cached: bool
    manifest: Mapping[str, Any]

    @property
    def receipt(self) -> Receipt:
        """What the file carries: which keys are loaded, which filled."""
        receipt = read_receipt(open(self.output))
        assert receipt is not None, self.output
        return receipt

    def to_json(self) -> dict[str, Any]:
        """Give the document of `run --json`."""
        return {"schema_version": 1, "cached": self.cached, **self.manifest, "output": str(self.output)}


def prepare(
    step: Step | str | Path | Mapping[str, Any] | None = None,
    *,
    overrides: Mapping[str, Any] | None = None,
    force: bool = False,
    progress: Progress | None = None,
    **fields: Any,
) -> Prepared:
    """Prepare the checkpoint that a step describes, or give the one that an earlier run of the same step left.

    `step` is a document's path, its values, or None with the fields as keywords. The output appears only once every
    check has passed, and `manifest.json` beside it last. Raises InvalidCall where another step's output is there
    and not `force`, VerificationFailed or TrainingFailed where a check fails, and what `ckptfix.adapt` raises.
    """
    described, folder = read_step(fields if step is None else step, overrides)
    described = described.resolve_paths(folder)
    job = prepare_job(described.source, described.target, described.recipe, described.vars)
    parts = _parts(described, job, folder)
    output = Path(described.output)
    output_format(output)
    refuse_source(output, job.checkpoint)
    marker = output.with_name(MANIFEST)
    found = _read_manifest(marker)
    ours = found is not None and found["parts"] == parts
    if found is not None and ours and _is_whole(output, found):
        return Prepared(output, cached=True, manifest=found)
    if found is not None and not ours and not force:
        changed = " and ".join(name for name in parts if parts[name] != found["parts"].get(name))
        raise OutputExists(
            f"was prepared with another {changed}", where=str(output.parent), hint="--force prepares it anew"
        )
    refuse_existing(output, replace=ours or force)
    manifest = _produce(described, job, parts, progress)
    write_whole(marker, f"{json.dumps(manifest, indent=2)}\n".encode(), replace=True)
    return Prepared(output, cached=False, manifest=manifest)


def _produce(step: Step, job: Job, parts: dict[str, str], progress: Progress | None) -> dict[str, Any]:
    """Write to a pending file, prove that, and only then take the place of what was there before."""
    output = Path(step.output)
    pending = output.with_name(f".pending-{output.name}")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        adapted = api.adapt(
            job.checkpoint,
            job.target,
            pending,
            step.recipe,
            variables=step.vars,
            dtype=step.dtype,
            existing="replace",
        )
        verification = _verify(step, job, pending)
        training = _finetune(step.checks.finetune, job, pending, progress) if step.checks.finetune else None
        _write_reports(step, adapted, verification, training)
        _judge(step, verification, training)
        digest, nbytes = hash_file(pending), pending.stat().st_size
        output.with_name(MANIFEST).unlink(missing_ok=True)
        pending.replace(output)
    except OSError as error:
        raise WriteFailed(f"cannot write: {(error.strerror or str(error)).lower()}", where=str(output)) from error
    except WriteFailed as error:
        error.where = str(output) if error.where == str(pending) else error.where
        raise
    finally:
        with contextlib.suppress(OSError):
            pending.unlink(missing_ok=True)
    report = adapted.plan.report()
    return {
        "fingerprint": hash_document(parts),
        "parts": parts,
        "ckptfix": __version__,
        "output": output.name,
        "bytes": nbytes,
        "blake3": digest,
        "checks": {
            "check": {"compatible": report.compatible, "loaded": len(report.loaded), "filled": len(report.filled)},
            "verify": {"ok": verification.ok} if verification else None,
            "finetune": {"ok": training.ok, "accuracy": _accuracy(training)} if training else None,
        },
    }


def _parts(step: Step, job: Job, folder: Path) -> dict[str, str]:
    """Hash all that decides the output, part by part.

    The target's own text counts only where the recipe takes initial values from it.
    """
    takes_initial = any(isinstance(leaf, Initial) for row in job.plan.outputs.values() for leaf in leaves(row.expr))
    options = step.model_dump(mode="json", include={"vars", "checks", "dtype"})
    return {
        "source": hash_document([*map(hash_file, sorted(job.checkpoint.stamps)), job.checkpoint.select]),
        "recipe": job.plan.recipe.digest,
        "target": hash_document(
            [job.target.manifest.to_json(), step.target.replace(str(folder), "") if takes_initial else None]
        ),
        "set of options": hash_document([options, Path(step.output).name]),
        "version of ckptfix": __version__,
    }


def hash_file(path: Path) -> str:
    """Hash the content of a file. Raises SourceNotFound or ReadFailed."""
    with File(path) as file:
        return hash_chunks(file.read(start, min(CHUNK, file.size - start)) for start in range(0, file.size, CHUNK))


def _read_manifest(path: Path) -> dict[str, Any] | None:
    """Read what an earlier run left; None where there is nothing. Raises InvalidCall for a foreign file."""
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InvalidCall("is not a manifest of ckptfix", where=str(path), hint="move it away") from error
    if not isinstance(document, dict) or not {"parts", "blake3", "bytes"} <= document.keys():
        raise InvalidCall("is not a manifest of ckptfix", where=str(path), hint="move it away")
    return document


def _is_whole(output: Path, manifest: Mapping[str, Any]) -> bool:
    """Tell whether the output is the file that the manifest speaks of, to the last byte."""
    return output.is_file() and output.stat().st_size == manifest["bytes"] and hash_file(output) == manifest["blake3"]


def _verify(step: Step, job: Job, pending: Path) -> Verification | None:
    asked = step.checks.verify
    if asked is False:
        return None
    shape = asked.input if isinstance(asked, VerifyCheck) else None
    return api.verify(
        pending,
        job.target,
        source=job.checkpoint,
        recipe=step.recipe,
        variables=step.vars,
        input_shape=shape,
    )


def _finetune(asked: FinetuneCheck, job: Job, pending: Path, progress: Progress | None) -> FinetuneReport:
    return api.finetune(
        pending,
        job.target,
        asked.data,
        asked.policies,
        seeds=asked.seeds,
        epochs=asked.epochs,
        batch_size=asked.batch_size,
        per_class=asked.per_class,
        device=asked.device,
        input_shape=asked.input,
        progress=progress,
    )


def _write_reports(
    step: Step, adapted: Adapted, verification: Verification | None, training: FinetuneReport | None
) -> None:
    """Write what was found, also where a check failed."""
    if step.report is None:
        return
    folder = Path(step.report)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteFailed(f"cannot make the folder: {error.strerror}", where=str(folder)) from error
    check = adapted.plan.report().to_json()
    verify = verification.to_json() if verification else None
    for name, document in (("check", check), ("verify", verify)):
        if document is not None:
            write_whole(folder / f"{name}.json", f"{json.dumps(document, indent=2)}\n".encode(), replace=True)
    if training is not None:
        write_finetune(training, folder, check=check, verify=verify)


def _accuracy(training: FinetuneReport) -> dict[str, float | None]:
    return {name: result.accuracy for name, result in training.policies.items()}


def _judge(step: Step, verification: Verification | None, training: FinetuneReport | None) -> None:
    """Raise for the first check that failed."""
    if verification is not None and not verification.ok:
        raise VerificationFailed("; ".join(verification.problems), where=step.output)
    if training is None or step.checks.finetune is None:
        return
    if not training.ok:
        raise TrainingFailed("; ".join(training.problems), where=step.output)
    accuracy = _accuracy(training)
    for policy, least in step.checks.finetune.least_accuracy().items():
        reached = accuracy[policy]
        if reached is None or reached < least:
            shown = "none" if reached is None else f"{reached:.3f}"
            raise TrainingFailed(
                f"{policy} reached an accuracy of {shown}, the step asks for {least}", where=step.output
            )
