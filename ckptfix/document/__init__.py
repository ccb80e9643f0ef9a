"""Documents that users write: read as YAML or JSON with the line of every node, then checked against a model."""

from __future__ import annotations

from ckptfix.document.parse import Document, parse_document, read_document
from ckptfix.document.validate import validate

__all__ = ["Document", "parse_document", "read_document", "validate"]
