"""A checkpoint of several files: is each as its receipt says, and does the file that names them say what it said?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ckptfix._version import __version__
from ckptfix.digest import hash_text
from ckptfix.errors import CkptfixError
from ckptfix.execute.destination import Part, write_index
from ckptfix.execute.receipt import RECEIPT_KEY, read_receipt
from ckptfix.formats import WHOLE, Checkpoint, open_checkpoint
from ckptfix.formats.distributed.emit import emit_metadata
from ckptfix.formats.distributed_file import items_of
from ckptfix.formats.folder import DISTRIBUTED
from ckptfix.proof.archive import check_archive
from ckptfix.proof.finding import Finding, fail
from ckptfix.proof.values import check_header


def check_files(checkpoint: Checkpoint) -> Finding:
    """Check the headers of all files, and make the file that names them again, to compare it byte for byte.

    Raises what opening a file raises.
    """
    paths = sorted(checkpoint.files - {checkpoint.path})
    receipt = read_receipt(checkpoint)
    if receipt is None:
        if any(map(_has_receipt, paths)):
            return fail("its files carry receipts, and what names the files carries none: it is damaged, or another's")
        return Finding(passed=None)
    files = {path: open_checkpoint(path, select=WHOLE) for path in paths}
    problems = [
        f"{path.name}: {problem}"
        for path, file in files.items()
        for finding in (check_header(file), check_archive(file))
        for problem in finding.problems
    ]
    if paths and receipt.version == __version__ and not problems:
        last = checkpoint.path / DISTRIBUTED if checkpoint.path.is_dir() else checkpoint.path
        held = {key for file in files.values() for key in file.tensors}
        if held != checkpoint.tensors.keys() or last.read_bytes() != _write_last(checkpoint, files):
            problems.append(f"{last.name} is not what was written")
    return Finding(not problems, tuple(problems))


def _has_receipt(path: Path) -> bool:
    try:
        return read_receipt(open_checkpoint(path, select=WHOLE)) is not None
    except CkptfixError:  # as the files of torch.distributed cannot be opened alone
        return False


def _write_last(checkpoint: Checkpoint, files: Mapping[Path, Checkpoint]) -> bytes:
    """Write the index, or the metadata of torch.distributed, as they were written for these files."""
    receipt = checkpoint.metadata[RECEIPT_KEY]
    digests = {path.name: hash_text(file.metadata[RECEIPT_KEY]) for path, file in files.items()}
    if checkpoint.path.is_dir():
        items = {key: item for path in files for key, item in items_of(path, path.name).items()}
        return emit_metadata(checkpoint.manifest, items, receipt, digests)
    parts = [Part(path.name, tuple(file.tensors)) for path, file in files.items()]
    return write_index(checkpoint.manifest, parts, receipt, digests)
