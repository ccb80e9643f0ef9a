"""The `ckptfix` command: one subcommand a file, loaded when it is called."""

from __future__ import annotations

from ckptfix.cli.main import main

__all__ = ["main"]
