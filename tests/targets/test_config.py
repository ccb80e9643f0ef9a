"""`config:`: transformers' models of a config file, with its classes, fields and overrides."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file
from transformers import BertConfig, CLIPConfig, GPT2Config, LlamaConfig, PreTrainedConfig, ViTConfig

import ckptfix
from ckptfix import target
from ckptfix.errors import IncompletePlan, TargetBuildError, UnknownTarget, UnknownVariable
from ckptfix.targets import schemes

from ..cli.running import ROOT, call
from .test_registries import assert_wants

SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
LLAMA = {**SMALL, "num_key_value_heads": 2, "vocab_size": 50}
VIT = ViTConfig(**SMALL, image_size=32, patch_size=16, num_channels=1, architectures=["ViTForImageClassification"])


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(config: PreTrainedConfig, name: str = "config.json", **changes: object) -> None:
    """Write a config as transformers does, with some fields changed; None takes a field out."""
    document = {**json.loads(config.to_json_string()), **changes}
    Path(name).write_text(json.dumps({field: value for field, value in document.items() if value is not None}))


@pytest.mark.parametrize(
    ("config", "architecture"),
    [
        (VIT, "ViTForImageClassification"),
        (BertConfig(**SMALL, vocab_size=50), "BertForSequenceClassification"),
        (BertConfig(**SMALL, vocab_size=50), "BertForMaskedLM"),
        (LlamaConfig(**LLAMA), "LlamaForCausalLM"),
        (LlamaConfig(**LLAMA, tie_word_embeddings=True), "LlamaForCausalLM"),
        (GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=50), "GPT2LMHeadModel"),
        (transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1]), "ResNetModel"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.model_type,
)
def test_the_manifest_is_the_model_s_state_dict(config: PreTrainedConfig, architecture: str) -> None:
    write(config, architectures=[architecture])
    expected = getattr(transformers, architecture)(config)
    assert_wants("config:config.json", expected)
    assert target("config:config.json").notes == ()


@pytest.mark.parametrize(
    ("config", "architecture", "tied"),
    [
        (LlamaConfig(**LLAMA), "LlamaForCausalLM", ()),
        (
            LlamaConfig(**LLAMA, tie_word_embeddings=True),
            "LlamaForCausalLM",
            (("model.embed_tokens.weight", "lm_head.weight"),),
        ),
        (
            GPT2Config(n_embd=32, n_layer=1, n_head=4, vocab_size=50),
            "GPT2LMHeadModel",
            (("transformer.wte.weight", "lm_head.weight"),),
        ),
    ],
)
def test_tied_weights(config: PreTrainedConfig, architecture: str, tied: tuple[tuple[str, str], ...]) -> None:
    write(config, architectures=[architecture])
    assert target("config:config.json").manifest.tied == tied


@pytest.mark.parametrize(
    ("query", "owner"),
    [
        ("", "ViTForImageClassification"),
        ("?class=AutoModel", "ViTModel"),
        ("?class=ViTModel", "ViTModel"),
        ("?class=AutoModelForImageClassification", "ViTForImageClassification"),
        ("?class=AutoModelForMaskedImageModeling", "ViTForMaskedImageModeling"),
    ],
)
def test_the_class_is_asked_for_or_that_of_the_config(query: str, owner: str) -> None:
    write(VIT)
    assert target(f"config:config.json{query}").manifest.modules[""].startswith(f"{owner}(")


def test_without_architectures_it_is_the_base_model() -> None:
    write(VIT, architectures=None)
    assert target("config:config.json").manifest.modules[""].startswith("ViTModel(")


def test_a_class_knows_its_config_where_the_file_has_no_type() -> None:
    write(BertConfig(**SMALL, vocab_size=50), model_type=None, architectures=["BertModel"])
    assert target("config:config.json").manifest["embeddings.word_embeddings.weight"].shape == (50, 32)


def test_a_class_may_be_made_from_a_nested_config_or_from_one_that_it_does_not_name() -> None:
    write(CLIPConfig(text_config={**SMALL, "vocab_size": 50}, vision_config={**SMALL, "image_size": 64}))
    found = target("config:config.json?class=CLIPVisionModel")
    assert found.manifest.modules[""].startswith("CLIPVisionModel(")
    assert found.input_shape == (3, 64, 64)
    assert found.config["hidden_size"] == 32
    Path("config.json").write_text(
        json.dumps({"model_type": "internlm3", "architectures": ["LlamaForCausalLM"]} | LLAMA)
    )
    assert target("config:config.json").manifest["lm_head.weight"].shape == (50, 32)


@pytest.mark.parametrize(
    ("config", "query", "shape"),
    [
        (VIT, "", (1, 32, 32)),
        (VIT, "?image_size=64&num_channels=3", (3, 64, 64)),
        (VIT, "?image_size=[64,32]", (1, 64, 32)),
        (LlamaConfig(**LLAMA), "", None),
        (transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1]), "", None),
    ],
)
def test_input_shapes(config: PreTrainedConfig, query: str, shape: tuple[int, ...] | None) -> None:
    write(config)
    assert target(f"config:config.json{query}").input_shape == shape


def test_overrides_reach_the_tensors() -> None:
    write(VIT, id2label={"0": "cat", "1": "dog", "2": "cow"}, label2id={"cat": 0, "dog": 1, "cow": 2})
    assert target("config:config.json").manifest["classifier.weight"].shape == (3, 32)
    found = target("config:config.json?num_labels=5&num_hidden_layers=1&dtype=bfloat16")
    assert found.manifest["classifier.weight"].shape == (5, 32)
    assert found.manifest["classifier.weight"].dtype.torch_name == "bfloat16"
    assert not any(".layers.1." in key for key in found.manifest)
    assert target('config:config.json?id2label={"0":"a"}').manifest["classifier.weight"].shape == (1, 32)


@pytest.mark.parametrize("name", ["n_layer", "num_hidden_layers"])
def test_either_name_of_a_field_overrides_it(name: str) -> None:
    write(GPT2Config(n_embd=32, n_layer=3, n_head=4, vocab_size=50), architectures=["GPT2Model"])
    keys = target(f"config:config.json?{name}=1").manifest
    assert {key.split(".")[1] for key in keys if key.startswith("h.")} == {"0"}


def test_a_dot_leads_into_a_nested_config() -> None:
    write(CLIPConfig(text_config={**SMALL, "vocab_size": 50}, vision_config={**SMALL, "image_size": 64}))
    found = target("config:config.json?class=CLIPModel&vision_config.num_hidden_layers=1&text_config.vocab_size=60")
    assert found.manifest["text_model.embeddings.token_embedding.weight"].shape == (60, 32)
    assert "vision_model.encoder.layers.0.mlp.fc1.weight" in found.manifest
    assert "vision_model.encoder.layers.1.mlp.fc1.weight" not in found.manifest
    assert found.config["vision_config.num_hidden_layers"] == 1
    assert found.config["vision_config.hidden_size"] == 32


def test_config_values_have_each_of_their_names() -> None:
    write(GPT2Config(n_embd=32, n_layer=3, n_head=4, vocab_size=50))
    config = target("config:config.json").config
    assert (config["n_head"], config["num_attention_heads"], config["num_labels"]) == (4, 4, 2)
    assert config["model_type"] == "gpt2"
    assert None not in config.values()
    assert not [name for name in config if name.startswith("_")]


ROTARY = """\
ckptfix: 1
vars: {h: target.config.num_attention_heads}
rules:
  - {op: rearrange, keys: "**.q_proj.weight", layout: "(h d two) i -> (h two d) i", sizes: {h: h, two: 2}}
"""


def test_a_recipe_takes_its_head_count_from_the_config() -> None:
    config = LlamaConfig(**LLAMA)
    write(config, architectures=["LlamaForCausalLM"])
    torch.manual_seed(0)
    state = transformers.LlamaForCausalLM(config).state_dict()
    torch.save(state, "meta.pth")
    ckptfix.adapt("meta.pth", "config:config.json", "out.safetensors", ROTARY)
    key = "model.layers.1.self_attn.q_proj.weight"
    expected = state[key].view(4, 4, 2, 32).transpose(1, 2).reshape(32, 32)
    assert torch.equal(load_file("out.safetensors")[key], expected)
    other = ckptfix.plan("meta.pth", "config:config.json", ROTARY.replace("num_attention_heads", "n_heads"))
    assert any(isinstance(error, UnknownVariable) for error in other.errors)


def test_another_number_of_classes_from_check_to_verify(capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    model = transformers.ViTForImageClassification(VIT)
    model.save_pretrained("tiny", save_original_format=False)  # else under the keys of older versions
    source, five = "tiny/model.safetensors", "config:tiny/config.json?num_labels=5"
    assert call("check", source, "config:tiny/config.json") == 0
    assert call("check", source, five) == 1
    assert "mismatched  classifier.weight" in capsys.readouterr().out
    with pytest.raises(IncompletePlan):
        ckptfix.adapt(source, five, "refused.safetensors")
    Path("head.yaml").write_text(
        "ckptfix: 1\nrules:\n"
        '  - {op: drop, keys: "classifier.*"}\n'
        '  - {op: fill, keys: "classifier.*", value: target}\n'
    )
    assert call("adapt", source, five, "-r", "head.yaml", "-o", "out.safetensors") == 0
    capsys.readouterr()
    assert call("verify", "out.safetensors", five, "--source", source, "-r", "head.yaml", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["ok"], found["strict_load"], found["values"], found["forward"]) == (True, True, True, True)
    adapted = transformers.AutoModelForImageClassification.from_config(
        transformers.AutoConfig.from_pretrained("tiny", num_labels=5)
    )
    adapted.load_state_dict(load_file("out.safetensors"), strict=True)
    pixels = torch.randn(2, 1, 32, 32)
    body = [net.eval().vit(pixels).last_hidden_state for net in (model, adapted)]
    assert torch.equal(*body)


def test_a_seed_decides_the_initial_values_as_transformers_draws_them() -> None:
    write(VIT)
    found = target("config:config.json")
    before = torch.get_rng_state()
    first, again, other = (found.must_build(seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        expected = transformers.ViTForImageClassification(VIT).state_dict()
    for key, tensor in expected.items():
        assert first[key].device.type == "cpu"
        assert torch.equal(first[key], tensor) and torch.equal(again[key], tensor), key
    assert not torch.equal(first["classifier.weight"], other["classifier.weight"])


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("class=ViTModell", "transformers has no model class 'ViTModell' (did you mean ViTModel, "),
        ("class=ViTConfig", "transformers has no model class 'ViTConfig' ("),
        ("class=7", "transformers has no model class '7' (name one of transformers' classes: ?class=AutoModel)"),
        ("class=BertModel", "BertModel is made from a BertConfig, and this is a ViTConfig"),
        ("class=AutoModelForCausalLM", "AutoModelForCausalLM has no model of type 'vit' (did you mean AutoModel"),
        ("num_lables=5", "ViTConfig has no field 'num_lables' (did you mean num_labels, "),
        ("zzzzzzzzzz=5", "ViTConfig has no field 'zzzzzzzzzz' (fields are those of the config's class and file)"),
        ("model_type=bert", "ViTConfig has no field 'model_type'"),
        ("attn_implementation=a/b", "ViTConfig has no field 'attn_implementation'"),
    ],
)  # fmt: skip
def test_what_transformers_does_not_have(query: str, message: str) -> None:
    write(VIT)
    with pytest.raises(UnknownTarget) as caught:
        target(f"config:config.json?{query}")
    assert str(caught.value).startswith(f"config:config.json?{query}: {message}")


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("hidden_size=big", "ViTConfig refuses the config: "),
        ("patch_size=0", "the constructor raised ZeroDivisionError: "),
        ("dtype=float33", "refuses the config: "),
    ],
)
def test_values_that_transformers_refuses(query: str, message: str) -> None:
    write(VIT)
    with pytest.raises(TargetBuildError) as caught:
        target(f"config:config.json?{query}")
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "config.json is no JSON: "),
        ("[" * 100_000, "config.json is no JSON: "),
        ("[1]", "config.json is no config: it holds a list"),
        ("{}", "the config has no 'model_type' (name the model: ?class=NAME)"),
        ('{"model_type": "vitt"}', "transformers has no model type 'vitt' (did you mean vit"),
        ('{"model_type": ["vit"]}', "transformers has no model type '['vit']'"),
        ('{"model_type": "vit", "architectures": ["ViTFoo"]}', "transformers has no model class 'ViTFoo' ("),
        (
            '{"model_type": "timm_wrapper", "model_args": {"checkpoint_path": "weights.pth"}}',
            "a target has no weights of its own (remove 'checkpoint_path')",
        ),
    ],
)  # fmt: skip
def test_files_that_describe_no_model(text: str, message: str) -> None:
    Path("config.json").write_text(text)
    with pytest.raises(UnknownTarget) as caught:
        target("config:config.json")
    assert str(caught.value).startswith(f"config:config.json: {message}")


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("config:none.json", "no such file: none.json"),
        ("config:", "no file is named (write config:./config.json)"),
        ("config:sub", "is a folder (write hf:sub)"),
    ],
)
def test_files_that_are_not_there(uri: str, message: str) -> None:
    Path("sub").mkdir()
    with pytest.raises(UnknownTarget) as caught:
        target(uri)
    assert str(caught.value) == f"{uri}: {message}"


def test_kernels_that_a_config_names_are_not_fetched() -> None:
    write(VIT, attn_implementation="someone/kernel", _attn_implementation="someone/kernel")
    found = target("config:config.json")
    module: Any = found.must_build(0)
    assert found.notes == ()
    assert "someone/kernel" not in str(vars(module.config))


def test_quantisation_is_noted() -> None:
    write(LlamaConfig(**LLAMA), architectures=["LlamaForCausalLM"], quantization_config={"quant_method": "fp8"})
    found = target("config:config.json")
    assert found.manifest["lm_head.weight"].dtype.torch_name == "float32"
    assert found.notes == ("the config's quantisation is not applied: the target's tensors are those before it",)


@pytest.mark.parametrize("scheme", ["config", "hf"])
def test_a_missing_package_is_named(scheme: str) -> None:
    write(VIT)
    uri = {"config": "config:config.json", "hf": "hf:."}[scheme]
    torch.save({"w": torch.zeros(1)}, "net.pth")
    args = ["check", "net.pth", uri]
    code = f"import sys; sys.modules['transformers'] = None\nfrom ckptfix.__main__ import main\nmain({args!r})"
    environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert found.returncode == 2
    assert found.stderr == f'error: {uri}: transformers is not installed (pip install "ckptfix[models]")\n'


def test_only_files_are_schemes() -> None:
    assert {"config", "hf"} <= set(schemes())
    assert not {"base", "transformers_config"} & set(schemes())
