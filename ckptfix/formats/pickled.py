"""A pickle by itself: `pickle.dump(state_dict, file)`, and the `.pkl` files of detectron2 and Caffe2.

One pickle of protocol 2 to 5 and nothing else (Lib/pickletools.py of CPython). The weights lie inside it, as arrays of
numpy (`formats/pickle/arrays.py`) or storages of torch (`formats/pickle/nested.py`), and are read from there.
detectron2 pickles `{"model": arrays, "__author__": text}`: fvcore/common/checkpoint.py.
"""

from __future__ import annotations

from pathlib import Path

from ckptfix.errors import MalformedFile
from ckptfix.formats.base import Contents, File, Format, Node
from ckptfix.formats.pickle import WITH_ARRAYS, Machine, Stream, is_legacy, list_opaque


class Pickled(Format):
    """One plain pickle."""

    name = "pickle"

    def recognises(self, head: bytes, path: Path) -> bool:
        """Tell by the protocol before the first opcode, which is never 0; a safetensors header may begin so too."""
        return head[:1] == b"\x80" and head[1:2] in b"\2\3\4\5" and head[4:9] != b"\0\0\0\0{" and not is_legacy(head)

    def open(self, path: Path) -> Contents:
        """Run the pickle as data, leaving the weights where they are."""
        with File(path) as file:
            stream = Stream(file.read, 0, file.size, path)
            machine = Machine(stream, _refuse_id, WITH_ARRAYS)
            root = machine.load()
            if stream.remaining:
                raise MalformedFile(
                    f"has {stream.remaining} bytes after its pickle", hint="split it: one pickle to a file"
                )
        return Contents(path, self.name, root, opaque=list_opaque(root, machine.created))


def _refuse_id(persistent_id: Node) -> Node:
    raise MalformedFile(
        "the pickle refers to storages that are not in it", hint="a data.pkl is one part of a torch file: name that"
    )
