"""The tools of a run: ckptfix and Python beside it, and peers installed into environments of their own."""

from __future__ import annotations

import shlex
import subprocess
import sys
import sysconfig
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).parent
RECIPES = HERE / "recipes"
OPTIONAL = ("--no-fsync", "--no-digest")
"""Options of ckptfix that are left away where it does not have them."""


@dataclass(frozen=True)
class Tools:
    """Where the commands are, and why a peer is not there."""

    paths: Mapping[str, str]
    missing: Mapping[str, str]
    versions: Mapping[str, str]
    absent: tuple[str, ...]

    def command(self, template: str, files: Mapping[str, object]) -> list[str]:
        """Fill a template."""
        parts = shlex.split(template)
        if "{ckptfix}" in parts:
            parts = [part for part in parts if part not in self.absent]
        return [part.format(**self.paths, **files) for part in parts]


def find_tools(scratch: Path, wanted: Collection[str]) -> Tools:
    """Install the peers that are wanted and can be installed under `scratch`, and find the rest beside this Python."""
    beside = Path(sys.executable).parent
    paths = {
        "python": sys.executable,
        "ckptfix": str(beside / "ckptfix"),
        "hf": str(beside / "hf"),
        "scripts": str(HERE / "scripts"),
        "recipes": str(RECIPES),
    }
    versions = {name: version(name) for name in ("ckptfix", "torch", "safetensors", "transformers", "numpy")}
    missing = {}
    for name in sorted(wanted):
        try:
            folder = PEERS[name](scratch / name)
        except InstallFailed as error:
            missing[name] = f"not installable: {error}"
        else:
            paths[name] = str(folder)
            versions[name] = _version(folder, name)
    told = subprocess.run([paths["ckptfix"], "adapt", "--help"], capture_output=True, text=True, check=True)  # noqa: S603
    return Tools(paths, missing, versions, tuple(option for option in OPTIONAL if option not in told.stdout))


class InstallFailed(Exception):
    """A peer cannot be installed here; the message says why."""


def _mergekit(home: Path) -> Path:
    """Install mergekit over this Python's packages, so that it runs with the same torch."""
    folder = _environment(sys.executable, home)
    packages = next((home / "lib").glob("python*/site-packages"))
    (packages / "beside.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    return _install(folder, "mergekit")


def _brainsurgery(home: Path) -> Path:
    """Install brainsurgery for a Python that it runs on, with a torch of its own where that is another one."""
    return _install(_environment(_newer_python(), home), "brainsurgery")


def _newer_python() -> str:
    for python in (sys.executable, *(f"python3.{minor}" for minor in range(13, 20))):
        with suppress(InstallFailed, OSError):
            _call(python, "-c", "import sys; sys.exit(sys.version_info < (3, 13))")
            return python
    raise InstallFailed("it wants Python 3.13, and there is none on the PATH")


def _environment(python: str, home: Path) -> Path:
    _call(python, "-m", "venv", str(home))
    return home / "bin"


def _install(folder: Path, package: str) -> Path:
    _call(str(folder / "pip"), "install", "--quiet", package)
    return folder


def _version(folder: Path, package: str) -> str:
    code = f"from importlib.metadata import version; print(version({package!r}))"
    return _call(str(folder / "python"), "-c", code).strip()


def _call(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise InstallFailed((done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1])
    return done.stdout


PEERS = {"mergekit": _mergekit, "brainsurgery": _brainsurgery}
