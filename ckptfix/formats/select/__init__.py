"""Choose the state dict of a file: DESIGN's "Source".

A state dict is a mapping with text keys and at least one tensor among its values; mappings inside it belong to it.
A mapping without direct tensors is searched. A pickled module counts as the mapping that its `state_dict()` would be.
"""

from ckptfix.formats.select.checkpoint import Candidate, Checkpoint, find_aliases, wrapper_prefixes
from ckptfix.formats.select.choose import WHOLE, resolve_path, select_state_dict
from ckptfix.formats.select.nesting import Budget, children, is_module, is_optimizer, join, mapping_of, name_of

__all__ = [
    "WHOLE",
    "Budget",
    "Candidate",
    "Checkpoint",
    "children",
    "find_aliases",
    "is_module",
    "is_optimizer",
    "join",
    "mapping_of",
    "name_of",
    "resolve_path",
    "select_state_dict",
    "wrapper_prefixes",
]
