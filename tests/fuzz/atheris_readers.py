"""Coverage-guided fuzzing of every reader: `python -m tests.fuzz.atheris_readers SECONDS`, so long for each format.

An input is a specimen's number and its files, one after the other. They are changed by the same mutators as in the
tests; which of them are kept is decided by the lines of ckptfix that they reach.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from random import Random

from tests.fuzz.specimen import Specimen

_MOST = 1 << 16
"""Bytes of an input."""


def pack(number: int, specimen: Specimen) -> bytes:
    """Write the number of a specimen and the content of its files."""
    parts = [len(data).to_bytes(4, "little") + data for _, data in sorted(specimen.files.items())]
    return bytes([number]) + b"".join(parts)


def unpack(packed: bytes, corpus: Sequence[Specimen]) -> tuple[int, Specimen]:
    """Read what `pack` wrote; what is missing or too long is cut."""
    number = packed[0] % len(corpus) if packed else 0
    files, at = {}, 1
    for name in sorted(corpus[number].files):
        length = int.from_bytes(packed[at : at + 4], "little")
        files[name] = packed[at + 4 : at + 4 + length]
        at += 4 + length
    return number, Specimen(corpus[number].opened, files)


def fuzz(folder: Path, options: list[str]) -> None:
    """Fuzz the corpus in a folder until libFuzzer ends the process."""
    import atheris

    with atheris.instrument_imports(include=["ckptfix"]):
        import ckptfix.cli.commands.inspect
        import ckptfix.report.security
        import ckptfix.report.text  # noqa: F401  what is imported later is not followed
        from tests.fuzz.attempt import attempt
        from tests.loading import load_formats

        load_formats()
    from tests.fuzz.mutate import mutate

    corpus = [Specimen.get(one) for one in sorted((folder / "corpus").iterdir()) if one.is_dir()]
    others = [data for one in corpus for data in one.files.values()]

    def change(packed: bytes, longest: int, seed: int) -> bytes:
        rng = Random(seed)
        number, specimen = unpack(packed, corpus)
        name = rng.choice(sorted(specimen.files))
        files = {**specimen.files, name: mutate(specimen.files[name], rng, others)}
        return pack(number, Specimen(specimen.opened, files))[:longest]

    def run(packed: bytes) -> None:
        _, specimen = unpack(packed, corpus)
        with tempfile.TemporaryDirectory(dir=folder) as inside:
            for name, data in specimen.files.items():
                Path(inside, name).write_bytes(data)
            attempt(Path(inside, specimen.opened))

    atheris.Setup([sys.argv[0], *options], run, custom_mutator=change)
    atheris.Fuzz()


def main(seconds: int) -> int:
    """Fuzz every format, and give the exit status: 1 where an input was found that breaks a reader."""
    from tests.fuzz.corpus import MAKERS, write_corpus

    failed = 0
    found = Path(tempfile.mkdtemp(prefix="ckptfix-atheris-"))
    for name in MAKERS:
        folder = found / name.replace(" ", "-")
        write_corpus(name, folder / "corpus")
        (folder / "seeds").mkdir()
        for number, one in enumerate(path for path in sorted((folder / "corpus").iterdir()) if path.is_dir()):
            (folder / "seeds" / one.name).write_bytes(pack(number, Specimen.get(one)))
        limits = [f"-max_total_time={seconds}", f"-max_len={_MOST}", "-timeout=10", "-rss_limit_mb=1024"]
        options = [*limits, f"-artifact_prefix={folder}/", "-print_final_stats=1", str(folder / "seeds")]
        command = [sys.executable, "-m", "tests.fuzz.atheris_readers", "--one", str(folder), *options]
        ran = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        runs = [line for line in ran.stderr.splitlines() if line.startswith("stat::number_of_executed_units")]
        print(f"{name}: {runs[0].split()[-1] if runs else 'no'} inputs, exit {ran.returncode}", flush=True)
        if ran.returncode or not runs:
            failed = 1
            print(f"{ran.stdout[-3000:]}\n{ran.stderr[-3000:]}\nthe input lies in {folder}", flush=True)
    return failed


if __name__ == "__main__":
    if sys.argv[1] == "--one":
        fuzz(Path(sys.argv[2]), sys.argv[3:])
    else:
        sys.exit(main(int(sys.argv[1])))
