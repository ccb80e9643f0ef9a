"""The receipt: what made each tensor, and the digests."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from blake3 import blake3

from ckptfix import __version__, adapt, load_recipe
from ckptfix.digest import hash_document
from ckptfix.errors import MalformedFile
from ckptfix.execute.receipt import Receipt, read_receipt
from ckptfix.formats import open_checkpoint

from .making import BOTH, bytes_of

RECIPE = """\
ckptfix: 1
rules:
  - {op: drop, keys: "head.*"}
  - {op: rename, map: {"old.{p}": "new.{p}"}}
  - {op: fill, keys: "head.*", value: ones}
  - {op: cast, keys: "half", dtype: F16}
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.pth"
    tensors = {"old.w": torch.arange(3.0), "kept": torch.arange(2), "half": torch.arange(4.0), "head.w": torch.zeros(9)}
    torch.save(tensors, path)
    return path


@pytest.fixture
def want(tmp_path: Path) -> Path:
    path = tmp_path / "want.pth"
    torch.save(
        {"new.w": torch.zeros(3), "kept": torch.arange(2), "half": torch.zeros(4), "head.w": torch.zeros(2)}, path
    )
    return path


@pytest.mark.parametrize("name", BOTH)
def test_what_it_says(name: str, source: Path, want: Path, tmp_path: Path) -> None:
    written = adapt(source, want, tmp_path / name, RECIPE).receipt
    found = read_receipt(open_checkpoint(tmp_path / name))
    assert found == written
    assert found.version == __version__
    assert found.recipe == load_recipe(RECIPE).digest
    rows = {key: (entry.made, entry.rule) for key, entry in found.entries.items()}
    assert rows == {
        "new.w": ("loaded", 2),
        "kept": ("loaded", None),
        "half": ("loaded", 4),
        "head.w": ("filled", 3),
    }
    assert found.filled == {"head.w"}
    expected = {
        "new.w": torch.arange(3.0),
        "kept": torch.arange(2),
        "half": torch.arange(4.0).half(),
        "head.w": torch.ones(2),
    }
    for key, tensor in expected.items():
        assert found.entries[key].blake3 == blake3(bytes_of(tensor)).hexdigest(), key


def test_the_recipe_s_digest_follows_its_meaning(source: Path) -> None:
    same = RECIPE.replace("ckptfix: 1", "# a comment\nckptfix: 1")
    assert load_recipe(same).digest == load_recipe(RECIPE).digest
    assert load_recipe(RECIPE.replace("ones", "zeros")).digest != load_recipe(RECIPE).digest


def digest(source: Path, out: Path) -> str | None:
    return adapt(source, source, out, existing="replace").receipt.source


def test_the_source_s_digest_covers_what_was_used(source: Path, want: Path, tmp_path: Path) -> None:
    tensors = torch.load(source)

    def digest(**changed: torch.Tensor) -> str | None:
        torch.save(tensors | changed, tmp_path / "changed.pth")
        return adapt(tmp_path / "changed.pth", want, tmp_path / "out.pth", RECIPE, existing="replace").receipt.source

    first = digest()
    assert digest() == first
    assert digest(kept=torch.arange(2) + 1) != first
    assert digest(half=torch.arange(4.0) + 1) != first
    assert digest(**{"head.w": torch.ones(9)}) == first  # dropped: its bytes were not read
    assert digest(**{"head.w": torch.zeros(8)}) != first  # its shape was


def test_the_source_s_digest_is_the_same_whatever_is_written(tmp_path: Path) -> None:
    shared = torch.arange(5.0)
    source = tmp_path / "source.pth"
    torch.save({"a": shared, "b": shared}, source)
    assert digest(source, tmp_path / "out.pth") == digest(source, tmp_path / "out.safetensors")


def test_its_length_does_not_depend_on_the_digests() -> None:
    from ckptfix.execute.receipt import Entry

    def text(value: str) -> str:
        return Receipt("1", "r" * 64, value, None, {"k": Entry("loaded", None, value)}).to_text()

    assert len(text("0" * 64)) == len(text("f" * 64))
    assert Receipt.from_text(text("f" * 64), "here").source == "f" * 64


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"tensors": {}}', '{"ckptfix":"1","recipe":"","source":null,"tensors":[]}']
    + [
        json.dumps({"ckptfix": "1", "recipe": "", "source": None, "tensors": {"k": entry}})
        for entry in (1, {}, {"made": "guessed", "rule": 1, "blake3": None})
    ],
)
def test_a_receipt_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(MalformedFile, match="receipt under 'ckptfix' cannot be read"):
        Receipt.from_text(text, "here")


@pytest.mark.parametrize("entries", [0, 1, 1024, 1025, 5000])
def test_digests_are_of_the_canonical_text(entries: int) -> None:
    """However it is cut, the text that is hashed is what `json` writes: ASCII, keys sorted, no blanks."""
    mapping = {f"{number:x}.é": [number, None] for number in range(entries)}
    for document in (mapping, [mapping, [], {}, "ü", mapping], [[mapping]], {"inside": mapping}):
        text = json.dumps(document, sort_keys=True, separators=(",", ":"))
        assert hash_document(document) == blake3(text.encode()).hexdigest()
