"""Published weights are converted by an inferred recipe, and the models say of real inputs what they said before."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torchvision.transforms.v2.functional import center_crop, normalize, pil_to_tensor, resize, to_dtype
from transformers import BertModel, BertTokenizerFast

import ckptfix
from ckptfix.inference.suggestion import Suggestion
from tests.inference.originals import EfficientNetLite0, SpeakerNet, VoiceEncoder
from tests.weights import efficientnet_lite0, imagenet, minilm, mobilenet_v2, resemblyzer

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)


def convert(source: Path, target: str | nn.Module, folder: Path) -> tuple[Suggestion, nn.Module]:
    """Infer the recipe, carry it out, and load what it writes into the target, strictly."""
    suggestion = ckptfix.suggest(source, target)
    assert suggestion.is_complete, suggestion.doubts
    out = folder / "converted.safetensors"
    ckptfix.adapt(source, target, out, suggestion.recipe)
    model = ckptfix.target(target).must_build(0)
    model.load_state_dict(load_file(out), strict=True)
    return suggestion, model.eval()


def names(target: str | nn.Module) -> set[str]:
    return set(ckptfix.target(target).manifest)


def photographs(mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Give the photographs as models of ImageNet take them, [20, 3, 224, 224]."""
    tensors = [center_crop(resize(pil_to_tensor(Image.open(photo)), [256]), [224]) for photo in imagenet()]
    return normalize(to_dtype(torch.stack(tensors), torch.float32, scale=True), list(mean), list(std))


@torch.no_grad()
def recognise(model: nn.Module, images: Tensor) -> Tensor:
    """Give the logits, [image, class]."""
    logits: Tensor = model.eval()(images)
    return logits


def check_classes(converted: nn.Module, original: nn.Module, images: Tensor, least: int) -> None:
    """Hold the classes of the photographs against the original's and, for `least` of them, the labels."""
    told, expected = recognise(converted, images), recognise(original, images)
    torch.testing.assert_close(told, expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(told.argmax(1), expected.argmax(1))
    assert int((told.argmax(1) == torch.tensor(list(imagenet().values()))).sum()) >= least


def test_the_official_mobilenet_v2_for_timm(tmp_path: Path) -> None:
    target = "timm:mobilenetv2_100"
    assert names(target).isdisjoint(ckptfix.open(mobilenet_v2()).manifest)
    suggestion, converted = convert(mobilenet_v2(), target, tmp_path)
    assert (len(suggestion.resolved), suggestion.filled, suggestion.unused) == (314, (), ())
    original = torchvision.models.mobilenet_v2()
    original.load_state_dict(torch.load(mobilenet_v2(), weights_only=True), strict=True)
    check_classes(converted, original, photographs(MEAN, STD), least=16)


def test_efficientnet_lite0_for_timm(tmp_path: Path) -> None:
    target = "timm:tf_efficientnet_lite0"
    assert names(target).isdisjoint(ckptfix.open(efficientnet_lite0()).manifest)
    suggestion, converted = convert(efficientnet_lite0(), target, tmp_path)
    assert (len(suggestion.resolved), suggestion.filled, suggestion.unused) == (296, (), ())
    original = EfficientNetLite0()
    original.load_state_dict(torch.load(efficientnet_lite0(), weights_only=True), strict=True)
    check_classes(converted, original, photographs(HALF, HALF), least=15)


@torch.no_grad()
def embed(model: Any, sentence: str) -> Tensor:
    """Give the vectors of a sentence's tokens, [1, tokens, 384]."""
    words = BertTokenizerFast.from_pretrained(minilm())(sentence, return_tensors="pt")
    vectors: Tensor = model(**words).last_hidden_state
    return vectors


@pytest.mark.parametrize(
    ("prefix", "kind", "fills"),
    [
        ("", "BertModel", 0),
        ("bert.", "BertModel", 0),
        ("", "BertForPreTraining", 8),
        ("bert.", "BertForPreTraining", 8),
    ],
)
def test_minilm_with_and_without_its_prefix(prefix: str, kind: str, fills: int, tmp_path: Path) -> None:
    source = tmp_path / "source.safetensors"
    save_file({prefix + key: value for key, value in load_file(minilm() / "model.safetensors").items()}, source)
    suggestion, converted = convert(source, f"hf:{minilm()}?class={kind}", tmp_path)
    assert len(suggestion.filled) == fills
    assert suggestion.unused == (f"{prefix}embeddings.position_ids",)
    original = BertModel.from_pretrained(minilm()).eval()
    sentence = "The weights have other names now."
    assert torch.equal(embed(getattr(converted, "bert", converted), sentence), embed(original, sentence))


def test_a_voice_encoder_by_other_names(tmp_path: Path) -> None:
    suggestion, converted = convert(resemblyzer(), SpeakerNet(), tmp_path)
    assert (len(suggestion.resolved), suggestion.filled) == (14, ())
    assert set(suggestion.unused) == {"similarity_weight", "similarity_bias"}
    original = VoiceEncoder()
    state = torch.load(resemblyzer(), map_location="cpu", weights_only=True)  # it was saved from a GPU
    original.load_state_dict(state["model_state"], strict=True)
    mels = torch.rand(4, 160, 40, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        vectors = converted(mels)
        assert torch.equal(vectors, original.eval()(mels))
    assert not torch.allclose(vectors[0], vectors[1])
