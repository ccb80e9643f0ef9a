"""An inert pickle machine: it interprets opcodes as data and can neither import nor call anything.

`load` runs one pickle. What the pickle would have imported is a `Global`, what it would have called is an `Opaque`,
but for the constructors of `globals.CONSTRUCTORS`, whose results are known without running them.
"""

from ckptfix.formats.pickle.arrays import ARRAYS, ELEMENTS, strides_of
from ckptfix.formats.pickle.audit import list_opaque
from ckptfix.formats.pickle.globals import CONSTRUCTORS, LOAD_FROM_BYTES
from ckptfix.formats.pickle.machine import Machine
from ckptfix.formats.pickle.nested import MAGIC, PROTOCOL, is_legacy, load_storage
from ckptfix.formats.pickle.storages import StorageId, StorageTable, part_of
from ckptfix.formats.pickle.stream import Stream
from ckptfix.formats.pickle.values import StorageValue, text_of, view

WITH_ARRAYS = CONSTRUCTORS | ARRAYS | {LOAD_FROM_BYTES: load_storage}
"""The known calls of a pickle that holds its weights itself."""

__all__ = [
    "ELEMENTS",
    "MAGIC",
    "PROTOCOL",
    "WITH_ARRAYS",
    "Machine",
    "StorageId",
    "StorageTable",
    "StorageValue",
    "Stream",
    "is_legacy",
    "list_opaque",
    "part_of",
    "strides_of",
    "text_of",
    "view",
]
