"""Property tests without a deadline: a busy machine is no defect."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("language", deadline=None)
settings.load_profile("language")
