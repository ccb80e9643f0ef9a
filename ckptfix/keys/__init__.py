"""The language of keys: patterns match them, templates make them, and the nearest ones help with a misspelt one."""

from __future__ import annotations

from ckptfix.keys.groups import Group, Member, gather
from ckptfix.keys.index import KeyIndex, Searchable
from ckptfix.keys.invert import invert_keys
from ckptfix.keys.nearest import nearest_keys, nearest_to_each
from ckptfix.keys.pattern import KeyPattern
from ckptfix.keys.template import KeyTemplate, VarValue

__all__ = [
    "Group",
    "KeyIndex",
    "KeyPattern",
    "KeyTemplate",
    "Member",
    "Searchable",
    "VarValue",
    "gather",
    "invert_keys",
    "nearest_keys",
    "nearest_to_each",
]
