"""The layout language: names for the axes of tensors, and how tensors fall apart and fit together along them."""

from __future__ import annotations

from ckptfix.layout.axes import (
    Axes,
    Axis,
    Name,
    Number,
    Product,
    Rest,
    Sum,
    expand,
    extent,
    names_of,
    parse_tensor,
    text_of,
)
from ckptfix.layout.pattern import Block, Layout, blocks
from ckptfix.layout.solve import Shaped, Sizes, solve, solve_layout

__all__ = [
    "Axes",
    "Axis",
    "Block",
    "Layout",
    "Name",
    "Number",
    "Product",
    "Rest",
    "Shaped",
    "Sizes",
    "Sum",
    "blocks",
    "expand",
    "extent",
    "names_of",
    "parse_tensor",
    "solve",
    "solve_layout",
    "text_of",
]
