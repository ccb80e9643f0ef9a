"""CLIP: OpenAI's, open_clip's and transformers' are held against each other by what they make of images and texts."""

from __future__ import annotations

import copy
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import open_clip
import torch
from open_clip.model import CustomTextCLIP
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel

from tests.recipes.case import Case, State, images, renamed

IMAGE, PATCH, WIDTH, HEADS, LAYERS, EMBEDDING = 32, 8, 128, 2, 12, 48
VOCABULARY, LENGTH = 61, (IMAGE // PATCH) ** 2 + 1
"""As many tokens as patches, so that the positions of both are alike in shape."""
END = VOCABULARY - 1
"""The token whose output speaks for the text; in all three the largest."""
SAID = (torch.arange(2 * LENGTH) * 7 % END).view(2, LENGTH).index_fill(1, torch.tensor([LENGTH - 1]), END)


def openai_code() -> ModuleType:
    """Import OpenAI's model.py alone: the package around it needs pkg_resources, which setuptools no longer has."""
    package = importlib.util.find_spec("clip")
    assert package and package.submodule_search_locations
    file = Path(package.submodule_search_locations[0]) / "model.py"
    spec = importlib.util.spec_from_file_location("openai_clip_model", file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


OPENAI: Any = openai_code()


def compared(images: Tensor, texts: Tensor, logit_scale: Tensor) -> Tensor:
    """Put side by side what images and texts became, and how like they are: [2, EMBEDDING + EMBEDDING + 2]."""
    images, texts = nn.functional.normalize(images), nn.functional.normalize(texts)
    return torch.cat([images, texts, logit_scale.exp() * images @ texts.T], dim=1)


class OpenAIClip(OPENAI.CLIP):
    def forward(self, images: Tensor) -> Tensor:
        return compared(self.encode_image(images), self.encode_text(SAID), self.logit_scale)


class OpenClip(open_clip.CLIP):
    def forward(self, images: Tensor) -> Tensor:
        return compared(self.encode_image(images), self.encode_text(SAID), self.logit_scale)


class OpenCustomTextClip(CustomTextCLIP):
    def forward(self, images: Tensor) -> Tensor:
        return compared(self.encode_image(images), self.encode_text(SAID), self.logit_scale)


class TransformersClip(CLIPModel):
    def forward(self, images: Tensor) -> Tensor:
        made = super().forward(input_ids=SAID, pixel_values=images)
        return torch.cat([made.image_embeds, made.text_embeds, made.logits_per_image], dim=1)


def openai() -> nn.Module:
    return OpenAIClip(EMBEDDING, IMAGE, LAYERS, WIDTH, PATCH, LENGTH, VOCABULARY, WIDTH, HEADS, LAYERS)


def open_configs() -> dict[str, Any]:
    sizes = {"layers": LAYERS, "width": WIDTH}
    return {
        "embed_dim": EMBEDDING,
        "vision_cfg": open_clip.CLIPVisionCfg(**sizes, head_width=WIDTH // HEADS, patch_size=PATCH, image_size=IMAGE),
        "text_cfg": open_clip.CLIPTextCfg(**sizes, heads=HEADS, context_length=LENGTH, vocab_size=VOCABULARY),
    }


def open_quick() -> nn.Module:
    return OpenClip(**open_configs(), quick_gelu=True)


def open_gelu() -> nn.Module:
    return OpenClip(**open_configs())


def open_custom_text() -> nn.Module:
    return OpenCustomTextClip(**open_configs(), quick_gelu=True)


def transformers(hidden_act: str = "quick_gelu") -> nn.Module:
    both = {
        "hidden_size": WIDTH,
        "intermediate_size": 4 * WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "hidden_act": hidden_act,
    }
    tokens = {"vocab_size": VOCABULARY, "max_position_embeddings": LENGTH, "bos_token_id": 0, "eos_token_id": END}
    pixels = {"image_size": IMAGE, "patch_size": PATCH}
    return TransformersClip(
        CLIPConfig(text_config=both | tokens, vision_config=both | pixels, projection_dim=EMBEDDING)
    )


def transformers_gelu() -> nn.Module:
    return transformers("gelu")


def halved(model: nn.Module) -> nn.Module:
    """Round a model's weights as OpenAI's are."""
    half = copy.deepcopy(model)
    OPENAI.convert_weights(half)
    return half.float()


def save_as_published(model: nn.Module, folder: Path) -> Path:
    """Save in half precision, with the numbers that OpenAI's archives have among their tensors."""
    half = copy.deepcopy(model)
    OPENAI.convert_weights(half)
    numbers = {"input_resolution": IMAGE, "context_length": LENGTH, "vocab_size": VOCABULARY}
    state = {**half.state_dict(), **{name: torch.tensor(number) for name, number in numbers.items()}}
    torch.save(state, folder / "source.pth")
    return folder / "source.pth"


def with_position_ids(state: State) -> State:
    """Add the positions that files of older transformers have."""
    positions = torch.arange(LENGTH)[None]
    return {**state, **{f"{model}_model.embeddings.position_ids": positions for model in ("text", "vision")}}


PIXELS = images(IMAGE)
THERE, BACK = "openai-transformers-clip", "transformers-openai-clip"
CASES = [
    Case(THERE, openai, transformers, PIXELS, "openai"),
    Case(THERE, openai, transformers, PIXELS, "published", save=save_as_published, reference=halved),
    Case(THERE, open_gelu, transformers_gelu, PIXELS, "open_clip"),
    Case(THERE, open_custom_text, transformers, PIXELS, "custom-text"),
    Case(BACK, transformers, openai, PIXELS, "openai"),
    Case(BACK, transformers, openai, PIXELS, "published", save=renamed(with_position_ids)),
    Case(BACK, transformers_gelu, open_gelu, PIXELS, "open_clip"),
    Case("openai-open_clip-clip", openai, open_quick, PIXELS, save=save_as_published, reference=halved),
    Case("open_clip-openai-clip", open_custom_text, openai, PIXELS, "openai"),
    Case("open_clip-openai-clip", open_custom_text, open_quick, PIXELS, "open_clip"),
]
