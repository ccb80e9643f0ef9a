"""Is every byte of an archive that is no tensor's the one that ckptfix wrote?

Most of a zip archive's fields and paddings are used by no reader, and no checksum covers them. But all follow from
the names, lengths and checksums of the entries, so they are made again and compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from ckptfix._version import __version__
from ckptfix.counts import count
from ckptfix.digest import crc32
from ckptfix.execute.receipt import RECEIPT_KEY, read_receipt
from ckptfix.formats import Checkpoint
from ckptfix.formats.base import CHUNK, File
from ckptfix.formats.distributed_file import DistributedFile
from ckptfix.formats.zip.archive import place_members, seal_members
from ckptfix.formats.zip.directory import Entry, read_directory
from ckptfix.proof.finding import Finding, fail, first_keys


def check_archive(checkpoint: Checkpoint) -> Finding:
    """Compare headers, paddings and directories, and the checksum of every entry that is no tensor of the state dict.

    Not tried for files without a receipt, and for those of another version, which may lay archives out otherwise.
    """
    receipt = read_receipt(checkpoint)
    if receipt is None or receipt.version != __version__:
        return Finding(passed=None)
    match checkpoint.format:
        case "torch zip":
            return _check_zip(checkpoint)
        case DistributedFile.name:
            return _check_items(checkpoint)
    return Finding(passed=None)


def _check_zip(checkpoint: Checkpoint) -> Finding:
    """The entries lie end to end, each after its header: what is compared and what has a checksum is all there is."""
    with File(checkpoint.path) as file:
        entries = read_directory(file)
        members = place_members({name: entry.nbytes for name, entry in entries.items()})
        sums = {name: entry.crc32 for name, entry in entries.items()}
        if (at := _first_other(file, seal_members(members, sums, {}))) is not None:
            return fail(f"the archive is not laid out as it was written, at byte {at}")
        checked = {run.offset for ref in checkpoint.tensors.values() for run in ref.storages}
        damaged = [
            entry.name
            for entry in entries.values()
            if entry.offset not in checked and _checksum(file, entry) != entry.crc32
        ]
    if damaged:
        return fail(f"{count(len(damaged), 'member')} without the CRC-32 that the archive keeps: {first_keys(damaged)}")
    return Finding(passed=True)


def _check_items(checkpoint: Checkpoint) -> Finding:
    """The archives of a distributed file hold one tensor each, and zeros lie between them."""
    runs = {key: ref.storages[0] for key, ref in checkpoint.tensors.items()}
    metadata = {name: text for name, text in checkpoint.metadata.items() if name != RECEIPT_KEY}
    receipt = checkpoint.metadata[RECEIPT_KEY]
    layout = DistributedFile().lay_out(checkpoint.manifest, {}, metadata, receipt)
    if moved := [key for key, run in runs.items() if run.offset != layout.offsets[key]]:
        return fail(f"{count(len(moved), 'tensor')} not where the layout puts them: {first_keys(moved)}")
    written = sorted(layout.seal(receipt, {key: run.crc32 or 0 for key, run in runs.items()}))
    spans = sorted(
        [(at, at + len(data)) for at, data in written]
        + [(run.offset, run.offset + run.nbytes) for run in runs.values()]
    )
    gaps = [(stop, bytes(start - stop)) for (_, stop), (start, _) in pairwise(spans)]
    with File(checkpoint.path) as file:
        if (at := _first_other(file, iter([*written, *gaps]))) is not None:
            return fail(f"the file is not laid out as it was written, at byte {at}")
    return Finding(passed=True)


def _first_other(file: File, written: Iterator[tuple[int, bytes]]) -> int | None:
    """Give the place of the first run of bytes that the file has otherwise."""
    for offset, data in written:
        if file.size < offset + len(data) or file.read(offset, len(data)) != data:
            return offset
    return None


def _checksum(file: File, entry: Entry) -> int:
    checksum = 0
    for start in range(0, entry.stored_nbytes, CHUNK):
        checksum = crc32(file.read(entry.offset + start, min(CHUNK, entry.stored_nbytes - start)), checksum)
    return checksum
