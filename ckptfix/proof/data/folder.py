"""`folder:DIR`: an image folder with one subfolder a class, in the order of their names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ckptfix.errors import InvalidCall, LimitExceeded, MalformedFile, MissingDependency, ReadFailed, SourceNotFound
from ckptfix.proof.data.base import Data, Wish, count_classes, split_rows, standardise

_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_LARGEST = 4 << 30
"""Bytes of pixels that are held in memory."""


def load(body: str, wish: Wish) -> Data:
    """Read a drawn part of the images, resized to the wished size, as uint8 `[n, channels, height, width]`.

    Raises SourceNotFound for no such folder, InvalidCall for too few classes or images, MalformedFile for an
    image that cannot be read, LimitExceeded for more than 4 GiB of pixels.
    """
    uri = f"folder:{body}"
    if wish.channels not in _MODES:
        raise InvalidCall(f"{uri}: an image has 1, 3 or 4 channels, the model wants {wish.channels}")
    root = Path(body).expanduser()
    found = _list_classes(root, uri)
    used = list(found)[: count_classes(len(found), wish, uri)]
    for name in used:
        if len(found[name]) < 2:
            hint = f"training and test need one image each; suffixes read: {' '.join(sorted(_SUFFIXES))}"
            raise InvalidCall(f"{uri}: {len(found[name])} images in '{name}'", hint=hint)
    drawn = split_rows([len(found[name]) for name in used], wish)
    sides = []
    for side in (0, 1):
        chosen = [(label, found[name][row]) for label, name in enumerate(used) for row in drawn[label][side]]
        sides.append((_read_images([path for _, path in chosen], wish), torch.tensor([label for label, _ in chosen])))
    return standardise(uri, sides[0], sides[1], tuple(used), len(found))


def _list_classes(root: Path, uri: str) -> dict[str, list[Path]]:
    """Map each class to its images, both sorted by name."""
    try:
        folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
        found = {
            folder.name: sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES)
            for folder in folders
        }
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SourceNotFound(f"{uri}: no such folder") from error
    except OSError as error:
        raise ReadFailed(f"{uri}: {error.strerror}") from error
    if not any(found.values()):
        inner = next((path for folder in folders for path in sorted(folder.iterdir()) if path.is_dir()), None)
        hint = f"the classes seem to be one level down: folder:{inner.parent}" if inner else "one subfolder a class"
        raise InvalidCall(f"{uri}: no image in any of its {len(folders)} subfolders", hint=hint)
    return found


def _read_images(paths: Sequence[Path], wish: Wish) -> Tensor:
    try:
        from PIL import Image, UnidentifiedImageError
    except ModuleNotFoundError as error:
        hint = 'pip install "ckptfix[finetune]"'
        raise MissingDependency(f"'folder' needs {error.name}, which is not installed", hint=hint) from error
    size = len(paths) * wish.channels * wish.height * wish.width
    if size > _LARGEST:
        raise LimitExceeded(f"{len(paths)} images need {size >> 30} GiB of memory", hint="use fewer images a class")
    x = torch.empty(len(paths), wish.channels, wish.height, wish.width, dtype=torch.uint8)
    for row, path in enumerate(paths):
        try:
            with Image.open(path) as image:
                pixels = image.convert(_MODES[wish.channels]).resize(
                    (wish.width, wish.height), Image.Resampling.BILINEAR
                )
        except FileNotFoundError as error:
            raise SourceNotFound(f"{path}: no such file") from error
        except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError, SyntaxError) as error:
            raise MalformedFile(f"{path}: not an image that can be read: {error}") from error
        plane = torch.frombuffer(bytearray(pixels.tobytes()), dtype=torch.uint8)
        x[row] = plane.reshape(wish.height, wish.width, wish.channels).permute(2, 0, 1)
    return x
