"""Describe the machine of a run, without its name and paths."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping
from pathlib import Path

GB = 1e9


def describe(scratch: Path, versions: Mapping[str, str]) -> str:
    """Say on what was measured: processor, memory, file system, and versions."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GB
    tools = ", ".join(f"{name} {version}" for name, version in versions.items())
    return (
        f"{len(os.sched_getaffinity(0))} cores ({_processor()}), {memory:.0f} GB of memory, {_file_system(scratch)}, "
        f"Linux {platform.release().split('-')[0]}, Python {platform.python_version()}, {tools}"
    )


def _processor() -> str:
    found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    return found[1] if found else platform.machine()


def _file_system(path: Path) -> str:
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    return max((point, kind) for point, kind in mounts if path.resolve().is_relative_to(point))[1]
