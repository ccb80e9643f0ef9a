"""A pickle by itself: `pickle.dump(state_dict, file)`, and the `.pkl` files of detectron2 and Caffe2.

One pickle and nothing else (Lib/pickletools.py of CPython). The weights lie inside it, as arrays of numpy
(`formats/pickle/arrays.py`) or storages of torch (`formats/pickle/nested.py`), and are read from there. Protocol 0
spells bytes as text with escapes: they are decoded on opening, up to a mebibyte each. detectron2 pickles
`{"model": arrays, "__author__": text}`: detectron2/checkpoint/detection_checkpoint.py.
"""

from __future__ import annotations

import re
from pathlib import Path

from ckptfix.errors import MalformedFile, RefusedContent, UnknownFormat
from ckptfix.formats.base import Contents, File, Format, Node
from ckptfix.formats.legacy.magic import is_legacy

_BEGINNINGS = (
    *(b"\x80" + bytes([protocol]) for protocol in (2, 3, 4, 5)),
    *(b"}q", b"(dp", b"]q", b"(lp"),
)
_NAME = re.compile(rb"\(?c[\w.]+\n[\w.]+\n[()\]}pqNSUVX.]")
"""What protocols 0 and 1 make of a class, and what follows it: its arguments or the memo."""

_JOBLIB = "joblib.numpy_pickle.NumpyArrayWrapper"
"""What stands for an array: its bytes follow the opcode that builds this (joblib/numpy_pickle.py)."""


class Pickled(Format):
    """One plain pickle."""

    name = "pickle"

    def recognises(self, head: bytes, path: Path) -> bool:
        """Tell by the protocol, or by what begins in protocol 0 or 1; a safetensors length may look so too."""
        begins = head.startswith(_BEGINNINGS) or _NAME.match(head) is not None
        return begins and head[4:9] != b"\0\0\0\0{" and not is_legacy(head)

    def open(self, path: Path) -> Contents:
        """Run the pickle as data, leaving the weights where they are."""
        from ckptfix.formats.pickle.audit import list_opaque
        from ckptfix.formats.pickle.calls import WITH_ARRAYS
        from ckptfix.formats.pickle.machine import Machine
        from ckptfix.formats.pickle.stream import Stream

        with File(path) as file:
            stream = Stream(file.read, 0, file.size, path)
            machine = Machine(stream, _refuse_id, WITH_ARRAYS)
            try:
                root = machine.load()
            except RefusedContent as error:
                if any(str(value) == _JOBLIB for value in machine.created):
                    raise UnknownFormat(
                        "is a file of joblib, whose arrays lie amid the opcodes of its pickle",
                        hint="where you trust it, load it with joblib and write the arrays with numpy.savez",
                    ) from error
                raise
            if stream.remaining:
                raise MalformedFile(
                    f"has {stream.remaining} bytes after its pickle", hint="split it: one pickle to a file"
                )
        return Contents(path, self.name, root, opaque=list_opaque(root, machine.created))


def _refuse_id(persistent_id: Node) -> Node:
    raise MalformedFile(
        "the pickle refers to storages that are not in it", hint="a data.pkl is one part of a torch file: name that"
    )
