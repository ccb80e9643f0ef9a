"""Write the page: `python -m tests.trust docs/trust.md`."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.trust.page import page

try:
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
except LookupError as error:
    sys.exit(f"error: {error.args[0]}")
