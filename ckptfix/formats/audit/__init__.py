"""What a file would have run: `Contents.opaque`, and what a refused file or the bytes that a call is given hold."""

from ckptfix.formats.audit.search import Audit, audit_file

__all__ = ["Audit", "audit_file"]
