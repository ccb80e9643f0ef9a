"""Is every byte of an archive that is no tensor's the one that ckptfix wrote?

Most of a zip archive's fields and paddings are used by no reader, and no checksum covers them. But all follow from
the names, lengths and checksums of the entries, so they are made again and compared.
"""

from __future__ import annotations

import zlib

from ckptfix._version import __version__
from ckptfix.execute.receipt import read_receipt
from ckptfix.formats import Checkpoint
from ckptfix.formats.base import CHUNK, File
from ckptfix.formats.zip.archive import place_members, seal_members
from ckptfix.formats.zip.directory import Entry, read_directory
from ckptfix.proof.finding import Finding, fail, first_keys


def check_archive(checkpoint: Checkpoint) -> Finding:
    """Compare headers, paddings and directory, and the checksum of every entry that is no tensor of the state dict.

    Not tried for files without a receipt, and for those of another version, which may lay archives out otherwise.
    """
    receipt = read_receipt(checkpoint)
    if receipt is None or receipt.version != __version__ or checkpoint.format != "torch zip":
        return Finding(passed=None)
    with File(checkpoint.path) as file:
        entries = read_directory(file)
        members = place_members({name: entry.nbytes for name, entry in entries.items()})
        sums = {name: entry.crc32 for name, entry in entries.items()}
        for offset, data in seal_members(members, sums, {}):
            if file.size < offset + len(data) or file.read(offset, len(data)) != data:
                return fail(f"the archive is not laid out as it was written, in the {len(data)} bytes at {offset}")
        checked = {run.offset for ref in checkpoint.tensors.values() for run in ref.storages}
        damaged = [
            entry.name
            for entry in entries.values()
            if entry.offset not in checked and _checksum(file, entry) != entry.crc32
        ]
    if damaged:
        return fail(f"{len(damaged)} entries do not have the CRC-32 that the archive keeps: {first_keys(damaged)}")
    return Finding(passed=True)


def _checksum(file: File, entry: Entry) -> int:
    crc32 = 0
    for start in range(0, entry.stored_nbytes, CHUNK):
        crc32 = zlib.crc32(file.read(entry.offset + start, min(CHUNK, entry.stored_nbytes - start)), crc32)
    return crc32
