"""Broken containers by format. Each entry of `FAMILIES` is a list of cases, each named for what it breaks."""

from __future__ import annotations

from ..case import Case
from . import arrays, folders, legacy, pickles, safetensors, zips

FAMILIES: dict[str, list[Case]] = {
    "zip": zips.CASES,
    "pickle": pickles.CASES,
    "legacy": legacy.CASES,
    "arrays": arrays.CASES,
    "folders": folders.CASES,
    "safetensors": safetensors.CASES,
}
