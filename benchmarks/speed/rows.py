"""The rows of the table as data: which commands are run on which checkpoint, and the bars that ckptfix has to meet.

A command is a template; the fields are the files that the row names in `forms`, the row's `target` and `recipe`, `out`
(a path that does not exist), `config` (a file with the contender's `config` in it), and the tools: `python`,
`ckptfix`, `scripts` and `recipes` (the folders), `hf`, `mergekit` and `brainsurgery` (the folders of their commands).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from benchmarks.speed.checkpoints import Checkpoint, fused, llama, single, small

MB = 1_000_000


@dataclass(frozen=True)
class Contender:
    """A command to run. `form` is the file that it reads, `wrote` what it leaves of `out`, `edit` what it does if not
    what the row asks for; `needs` is the tool that has to be installed."""

    name: str
    command: str
    form: str = "safetensors"
    wrote: str = ""
    edit: str | None = None
    config: str = ""
    needs: str = ""


@dataclass(frozen=True)
class Bar:
    """What one contender has to meet: at most so many times the row's first one, so many seconds, so many bytes."""

    contender: str
    ratio: float | None = None
    seconds: float | None = None
    memory: int | None = None


@dataclass(frozen=True)
class Row:
    """A race on one checkpoint; the first contender is what the others are compared with. Without `edit` nothing is
    written; `repeat` multiplies the runs of what is over soon; `disk` names a file system to run on, of its own."""

    name: str
    title: str
    checkpoint: Checkpoint
    contenders: Sequence[Contender]
    bars: Sequence[Bar]
    edit: str = ""
    recipe: str = ""
    forms: Sequence[str] = ("safetensors",)
    repeat: int = 1
    disk: str = ""


def adapt(name: str, form: str = "safetensors", *options: str, suffix: str = ".safetensors") -> Contender:
    """Make the command of ckptfix; options that it does not have are left away when it is run."""
    command = " ".join(["{ckptfix} adapt", f"{{{form}}}", "{target} -r {recipe} -o {out}" + suffix, *options])
    return Contender(name, command, form, suffix.rstrip("/"))


def script(name: str, file: str, form: str = "safetensors", suffix: str = ".safetensors") -> Contender:
    """Make the command of one of the scripts."""
    return Contender(name, f"{{python}} {{scripts}}/{file} {{edit}} {{{form}}} {{out}}{suffix}", form, suffix)


def pretrained(form: str, edit: str | None = "same", dtype: str = "float32", shards: str = "100GB") -> Contender:
    """Make the command of transformers, which saves again what it loads."""
    folder = "{shards}" if form == "shards" else f"{{{form}.parent}}"
    command = f"{{python}} {{scripts}}/pretrained.py {dtype} {shards} {folder} {{out}}"
    return Contender("transformers from_pretrained + save_pretrained", command, form, edit=edit)


def mergekit_yaml(form: str = "safetensors", edit: str | None = "same", dtype: str = "float32") -> Contender:
    """Make the command of mergekit for a model that it knows."""
    model = "{shards}" if form == "shards" else f"{{{form}.parent}}"
    config = f"merge_method: passthrough\nmodels:\n  - model: {model}\ndtype: {dtype}\n"
    command = "{mergekit}/mergekit-yaml {config} {out}" + (" --out-shard-size 500M" if form == "shards" else "")
    return Contender("mergekit-yaml", command, form, edit=edit, config=config, needs="mergekit")


def mergekit_pytorch(form: str) -> Contender:
    """Make the command of mergekit for any file."""
    config = f"merge_method: passthrough\nmodels:\n  - model: {{{form}}}\ndtype: float32\n"
    command = "{mergekit}/mergekit-pytorch {config} {out}"
    return Contender("mergekit-pytorch", command, form, edit="same", config=config, needs="mergekit")


def brainsurgery(provider: str, form: str = "safetensors") -> Contender:
    """Make the command of brainsurgery."""
    config = f"inputs:\n  - {{{form}}}\noutput:\n  path: {{out}}.safetensors\n  shard: none\n"
    plan = "{brainsurgery}/brainsurgery {recipes}/{edit}.brainsurgery.yaml {config}"
    command = f"{plan} --no-summarize --provider {provider} --arena-root {{out}}.arena"
    name = {"inmemory": "brainsurgery, in memory", "arena": "brainsurgery, arena"}[provider]
    return Contender(name, command, form, ".safetensors", config=config, needs="brainsurgery")


CP = Contender("cp", "cp {safetensors} {out}.safetensors", wrote=".safetensors", edit="same")
CP_PTH = Contender("cp", "cp {pth} {out}.pth", "pth", ".pth", "same")
CP_SYNC = replace(CP, name="cp + sync", command="sh -c 'cp {safetensors} {out}.safetensors && sync {out}.safetensors'")
LOAD_FILE = script("load_file + save_file", "load_file.py")
SAFE_OPEN = script("safe_open + save_file", "safe_open.py")
NAIVE = script("torch.load + dict comprehension + save_file", "torch_load.py", "pth")
MMAP = script("torch.load(mmap=True) + save_file", "torch_mmap.py", "pth")
PYTHON = Contender("python -c pass", "{python} -c pass")
INSPECT = Contender("ckptfix inspect", "{ckptfix} inspect {safetensors}")
LIST = Contender("safe_open", "{python} {scripts}/list_keys.py {safetensors}")
NO_FSYNC, NO_DIGEST = "ckptfix --no-fsync", "ckptfix --no-digest --no-fsync"
PLAIN = adapt(NO_FSYNC, "safetensors", "--no-fsync")
BARE = adapt(NO_DIGEST, "safetensors", "--no-digest", "--no-fsync")


def moves(keys: int) -> int:
    """Give the bytes that moving the bytes of so many tensors may take."""
    return 32 * MB + 2000 * keys


def rows(size: int) -> list[Row]:
    """List the rows for checkpoints of `size` bytes."""
    model, many = llama(size), small(20_000)
    return [
        Row(
            "rename",
            "Rename and drop, safetensors to safetensors",
            model,
            [
                *(CP, BARE, PLAIN, LOAD_FILE, SAFE_OPEN, MMAP, NAIVE),
                pretrained("safetensors"),
                mergekit_yaml(),
                mergekit_pytorch("safetensors"),
                brainsurgery("inmemory"),
                brainsurgery("arena"),
            ],
            [Bar(NO_DIGEST, ratio=1.15, memory=moves(300)), Bar(NO_FSYNC, ratio=1.5, memory=moves(300))],
            edit="rename",
            forms=("safetensors", "pth"),
        ),
        Row(
            "fsync",
            "The same, flushed to the disk",
            model,
            [CP_SYNC, adapt("ckptfix --no-digest", "safetensors", "--no-digest"), adapt("ckptfix")],
            [Bar("ckptfix --no-digest", ratio=1.15, memory=moves(300))],
            edit="rename",
        ),
        Row(
            "pth",
            ".pth to safetensors, rename and drop",
            model,
            [
                CP_PTH,
                adapt(NO_DIGEST, "pth", "--no-digest", "--no-fsync"),
                adapt(NO_FSYNC, "pth", "--no-fsync"),
                *(MMAP, NAIVE),
                pretrained("pth"),
                mergekit_pytorch("pth"),
                brainsurgery("inmemory", "pth"),
            ],
            [Bar(NO_DIGEST, ratio=1.25, memory=moves(300))],
            edit="rename",
            forms=("pth",),
        ),
        Row(
            "reflink",
            "Rename and drop on a file system that shares blocks (XFS)",
            model,
            [replace(CP, name="cp --reflink", command="cp --reflink=always {safetensors} {out}.safetensors"), BARE],
            [Bar(NO_DIGEST, seconds=0.3)],
            edit="rename",
            disk="xfs",
        ),
        Row(
            "split",
            "Split q, k and v along the first axis",
            fused(size),
            [CP, BARE, PLAIN, LOAD_FILE, SAFE_OPEN],
            [Bar(NO_DIGEST, ratio=1.25, memory=moves(300))],
            edit="split",
        ),
        Row(
            "cast",
            "float32 to bfloat16",
            model,
            [
                *(CP, BARE, PLAIN, LOAD_FILE, SAFE_OPEN),
                pretrained("safetensors", None, "bfloat16"),
                mergekit_yaml("safetensors", None, "bfloat16"),
                brainsurgery("inmemory"),
            ],
            [Bar(NO_DIGEST, ratio=1.3, memory=64 * MB)],
            edit="cast",
        ),
        Row(
            "shards",
            "Four shards to four shards, rename and drop",
            model,
            [
                Contender("cp -r", "cp -r {shards} {out}", "shards", edit="same"),
                adapt(NO_FSYNC, "shards", f"--max-shard-size {size // 4}", "--no-fsync", suffix="/"),
                script("load_file + save_file, shard after shard", "load_shards.py", "shards", ""),
                pretrained("shards", shards=f"{size // 4 // MB}MB"),
                mergekit_yaml("shards"),
            ],
            [Bar(NO_FSYNC, ratio=0.75, memory=moves(300))],
            edit="rename",
            forms=("shards",),
        ),
        Row(
            "small",
            "20,000 tensors of 4 KB, rename and drop",
            many,
            [CP, BARE, PLAIN, LOAD_FILE, SAFE_OPEN, MMAP, NAIVE, brainsurgery("inmemory")],
            [Bar(NO_DIGEST, memory=moves(20_000))],
            edit="rename",
            forms=("safetensors", "pth"),
        ),
        Row(
            "limit",
            "float32 to bfloat16, one tensor of twice the memory allowed",
            single(size),
            [limited(one, size // 2) for one in (CP, BARE, PLAIN, LOAD_FILE, SAFE_OPEN, brainsurgery("inmemory"))],
            [Bar(NO_DIGEST, memory=64 * MB)],
            edit="cast",
        ),
        Row(
            "help",
            "Start",
            model,
            [
                PYTHON,
                Contender("ckptfix --help", "{ckptfix} --help"),
                Contender("hf --help", "{hf} --help"),
                Contender("mergekit-yaml --help", "{mergekit}/mergekit-yaml --help", needs="mergekit"),
                Contender("brainsurgery --help", "{brainsurgery}/brainsurgery --help", needs="brainsurgery"),
            ],
            [Bar("ckptfix --help", ratio=6)],
            repeat=3,
        ),
        Row("inspect", "List 300 tensors", model, [PYTHON, INSPECT, LIST], [Bar(INSPECT.name, ratio=7)], repeat=3),
        Row(
            "inspect-many",
            "List 20,000 tensors",
            many,
            [PYTHON, INSPECT, LIST],
            [Bar(INSPECT.name, ratio=15)],
            repeat=3,
        ),
        Row(
            "plan",
            "Plan 20,000 tensors by 50 rules",
            many,
            [PYTHON, Contender("ckptfix plan", "{ckptfix} plan {safetensors} {target} -r {recipe}")],
            [Bar("ckptfix plan", seconds=1.0)],
            recipe="parts",
            repeat=2,
        ),
    ]


def limited(contender: Contender, memory: int) -> Contender:
    """Let a command have so many bytes of memory of its own."""
    return replace(contender, command=f"prlimit --data={memory} {contender.command}")


@dataclass(frozen=True)
class Growth:
    """A chart of the time against what grows: a race at each point."""

    name: str
    title: str
    axis: str
    points: Sequence[tuple[float, Checkpoint]]

    def rows(self) -> list[Row]:
        """Make a row for each point."""
        return [
            Row(
                f"{self.name}-{point:g}",
                f"{self.title}: {point:g}",
                checkpoint,
                [CP, PLAIN, LOAD_FILE, NAIVE],
                [],
                edit="rename",
                forms=("safetensors", "pth"),
            )
            for point, checkpoint in self.points
        ]


def growths(size: int) -> list[Growth]:
    """List the growth charts for checkpoints up to twice `size` bytes, and up to 100,000 tensors."""
    sizes = [size // 8, size // 4, size // 2, size, 2 * size]
    return [
        Growth("bytes", "Time against bytes, 300 tensors", "GB", [(n / 1e9, llama(n)) for n in sizes]),
        Growth(
            "keys",
            "Time against tensors, 4 KB each",
            "tensors",
            [(n, small(n)) for n in (300, 1_000, 3_000, 10_000, 30_000, 100_000)],
        ),
    ]
