"""How much of what could be tried is tried: a part in the default run, more where CKPTFIX_SOAK is set."""

from __future__ import annotations

import os

SOAK = bool(os.environ.get("CKPTFIX_SOAK"))
