"""Broken containers by format. Each entry of `FAMILIES` is a list of cases, each named for what it breaks."""

from __future__ import annotations

from ..case import Case
from . import legacy, pickles, safetensors, zips

FAMILIES: dict[str, list[Case]] = {
    "zip": zips.CASES,
    "pickle": pickles.CASES,
    "legacy": legacy.CASES,
    "safetensors": safetensors.CASES,
}
