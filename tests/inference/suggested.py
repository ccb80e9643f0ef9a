"""Write docs/suggested.md: three recipes as `ckptfix suggest` prints them.

python -m tests.inference.suggested docs/suggested.md
"""

from __future__ import annotations

import shlex
import shutil
import sys
import warnings
from collections.abc import Callable, Iterable
from contextlib import chdir, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

import timm
from safetensors.torch import save_file
from transformers import MixtralConfig, MixtralForCausalLM, ViTConfig

from ckptfix.cli.main import run
from tests.weights import efficientnet_lite0

INTRODUCTION = """\
# Three suggested recipes

`make docs` writes this page. Each recipe is, to the letter, what the command above it prints. The comment over the
rules says what they rest on, one at a line what that line alone rests on. How a recipe is inferred is in
`docs/suggest.md`.
"""


@dataclass(frozen=True)
class Example:
    """A command, run in a folder with the files that `prepare` makes there."""

    title: str
    about: str
    command: str
    prepare: Callable[[Path], object]


def prepare_efficientnet(folder: Path) -> None:
    shutil.copy(efficientnet_lite0(), folder)


def prepare_vit(folder: Path) -> None:
    """Save a ViT as timm names it, and the config of the same model in transformers; the numbers are random."""
    save_file(timm.create_model("vit_tiny_patch16_224").state_dict(), folder / "vit_tiny_patch16_224.safetensors")
    sizes = {"hidden_size": 192, "num_attention_heads": 3, "intermediate_size": 768, "num_labels": 1000}
    ViTConfig(**sizes, architectures=["ViTForImageClassification"]).save_pretrained(folder / "vit-tiny")


def prepare_mixtral(folder: Path) -> None:
    """Save a small Mixtral: transformers writes the names of the published files, not those of its module."""
    config = MixtralConfig(
        vocab_size=100,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=8,
    )
    MixtralForCausalLM(config).save_pretrained(folder / "mixtral")


EXAMPLES = (
    Example(
        "EfficientNet-Lite0 for timm",
        """\
The published weights of a port to PyTorch; no key has the same name in timm. The port numbers the blocks from 0 to 15,
timm numbers stages and the blocks in each: `stage` and `block` translate. The first block does not expand, so its norms
and its last convolution have other numbers and names in timm: it goes first, and what is left follows one pattern.
""",
        "ckptfix suggest efficientnet-lite0-57934424.pth timm:tf_efficientnet_lite0",
        prepare_efficientnet,
    ),
    Example(
        "A ViT of timm for transformers",
        """\
timm has queries, keys and values in one matrix, transformers has a matrix for each; everything else is renamed. `{i}`
stands for the number of a block and no size is mentioned, so the recipe does the same for a larger ViT.
""",
        "ckptfix suggest vit_tiny_patch16_224.safetensors hf:vit-tiny",
        prepare_vit,
    ),
    Example(
        "Mixtral for transformers 5",
        """\
Published files have three matrices for each expert. The module has two tensors for all experts of a layer: `e` is the
axis along which they are stacked, and the first holds the matrices `w1` (gate) and `w3` (up) of each expert, one above
the other. Keys that no rule names are the same on both sides. The model here is a small one with random weights.
""",
        "ckptfix suggest mixtral/model.safetensors hf:mixtral",
        prepare_mixtral,
    ),
)


def show(example: Example) -> str:
    """Run a command, which must leave nothing open, and write the section about it."""
    printed = StringIO()
    program, *args = shlex.split(example.command)
    assert program == "ckptfix"
    with TemporaryDirectory() as folder:
        example.prepare(Path(folder))
        with chdir(folder), redirect_stdout(printed):
            assert run(args) == 0, example.command
    return "\n".join(
        [
            f"## {example.title}\n",
            example.about,
            f"```console\n$ {example.command}\n```\n",
            f"```yaml\n{printed.getvalue()}```\n",
        ]
    )


def page(examples: Iterable[Example]) -> str:
    """Write the page."""
    return "\n".join([INTRODUCTION, *map(show, examples)])


if __name__ == "__main__":
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    warnings.simplefilter("ignore")  # what the libraries say of themselves
    Path(sys.argv[1]).write_text(page(EXAMPLES), encoding="utf-8")
