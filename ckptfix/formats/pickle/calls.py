"""The known calls of a pickle that holds its weights itself."""

from __future__ import annotations

from ckptfix.formats.pickle.arrays import ARRAYS
from ckptfix.formats.pickle.globals import CONSTRUCTORS, LOAD_FROM_BYTES
from ckptfix.formats.pickle.nested import load_storage

WITH_ARRAYS = CONSTRUCTORS | ARRAYS | {LOAD_FROM_BYTES: load_storage}
