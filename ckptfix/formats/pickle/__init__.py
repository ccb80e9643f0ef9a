"""An inert pickle machine: it interprets opcodes as data and can neither import nor call anything.

`load` runs one pickle. What the pickle would have imported is a `Global`, what it would have called is an `Opaque`,
but for the constructors of `globals.CONSTRUCTORS`, whose results are known without running them.
"""

from ckptfix.formats.pickle.audit import list_opaque
from ckptfix.formats.pickle.machine import Machine
from ckptfix.formats.pickle.storages import StorageId, StorageTable, part_of
from ckptfix.formats.pickle.stream import Stream
from ckptfix.formats.pickle.values import StorageValue, text_of, view

__all__ = [
    "Machine",
    "StorageId",
    "StorageTable",
    "StorageValue",
    "Stream",
    "list_opaque",
    "part_of",
    "text_of",
    "view",
]
