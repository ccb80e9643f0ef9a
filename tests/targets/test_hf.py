"""`hf:`: folders and hub repositories, of which nothing but `config.json` is ever read."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
import transformers
from transformers import BertConfig, GPT2Config, GPT2Model, LlamaConfig, ViTConfig

from ckptfix import check, target
from ckptfix.errors import UnknownTarget

from ..cli.running import ROOT, spawn

SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
BERT = {"model_type": "bert", "architectures": ["BertForSequenceClassification"], "vocab_size": 50, **SMALL}
UNREACHABLE = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name: str = "model", **config: object) -> None:
    Path(name).mkdir(exist_ok=True)
    (Path(name) / "config.json").write_text(json.dumps(config))


def test_a_folder() -> None:
    ViTConfig(**SMALL, image_size=32, patch_size=16, architectures=["ViTForImageClassification"]).save_pretrained("vit")
    found = target("hf:vit?num_labels=7")
    expected = transformers.ViTForImageClassification(ViTConfig(**SMALL, image_size=32, patch_size=16, num_labels=7))
    assert {key: spec.shape for key, spec in found.manifest.items()} == {
        key: tuple(tensor.shape) for key, tensor in expected.state_dict().items()
    }
    assert found.input_shape == (3, 32, 32)
    assert target(f"hf:{Path('vit').resolve()}/?class=AutoModel").manifest.modules[""].startswith("ViTModel(")


def test_a_saved_tied_model_says_how_to_give_the_key_that_is_not_in_the_file() -> None:
    config = LlamaConfig(**SMALL, vocab_size=50, tie_word_embeddings=True)
    transformers.LlamaForCausalLM(config).save_pretrained("llama")
    (row,) = check("llama/model.safetensors", "hf:llama").missing
    assert row.key == "lm_head.weight"
    assert row.hint is not None and row.hint.endswith("{op: copy, from: model.embed_tokens.weight, to: lm_head.weight}")


def test_a_target_of_70_billion_parameters_takes_little_memory_and_time() -> None:
    write(
        model_type="llama",
        architectures=["LlamaForCausalLM"],
        hidden_size=8192,
        intermediate_size=28672,
        num_hidden_layers=80,
        num_attention_heads=64,
        num_key_value_heads=8,
        vocab_size=128256,
        torch_dtype="bfloat16",
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = target("hf:model")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # KiB
    assert found.manifest.numel == 70_553_706_496
    assert found.notes == ()
    assert {spec.dtype.torch_name for spec in found.manifest.values()} == {"bfloat16"}


REMOTE = """\
from pathlib import Path
Path("MARKER").touch()
from transformers import BertConfig, BertModel
class OwnConfig(BertConfig): model_type = "own"
class OwnModel(BertModel): config_class = OwnConfig
"""
AUTO_MAP = {"AutoConfig": "own.OwnConfig", "AutoModel": "own.OwnModel"}


@pytest.mark.parametrize(
    ("changes", "query", "message"),
    [
        ({"model_type": "own"}, "", "transformers has no model type 'own'"),
        ({"model_type": "own"}, "?class=AutoModel", "transformers has no model type 'own'"),
        ({"model_type": None}, "?class=AutoModel", "there is no 'model_type'"),
        ({"architectures": ["OwnModel"]}, "", "transformers has no class 'OwnModel'"),
    ],
)
def test_remote_code_is_refused_and_not_run(changes: dict[str, object], query: str, message: str) -> None:
    write(**{**BERT, "auto_map": AUTO_MAP, **changes})
    Path("model/own.py").write_text(REMOTE.replace("MARKER", str(Path("marker").resolve())))
    with pytest.raises(UnknownTarget) as caught:
        target(f"hf:model{query}")
    assert f"{message}; the config names remote code (own.OwnConfig), which is never run (" in str(caught.value)
    assert "?class=" in (caught.value.hint or "")
    assert not Path("marker").exists()


@pytest.mark.parametrize("query", ["", "?class=AutoModel", "?class=BertModel", "?class=AutoModelForMaskedLM"])
def test_a_class_of_transformers_own_goes_before_remote_code(query: str) -> None:
    write(**BERT, auto_map={**AUTO_MAP, "AutoModelForMaskedLM": "own.OwnModel"})
    Path("model/own.py").write_text(REMOTE.replace("MARKER", str(Path("marker").resolve())))
    found = target(f"hf:model{query}")
    assert found.manifest.modules[""].startswith("Bert")
    assert found.notes[0].startswith("the config names remote code (own.OwnModel), which is not run: ")
    assert isinstance(found.must_build(0), transformers.BertPreTrainedModel)
    assert not Path("marker").exists()


def test_a_class_asked_for_takes_a_config_of_unknown_type() -> None:
    write(**{**BERT, "model_type": "own"}, auto_map=AUTO_MAP)
    assert target("hf:model?class=BertModel").manifest["embeddings.word_embeddings.weight"].shape == (50, 32)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("hf:empty", "no config.json in the folder (name a config file: config:FILE)"),
        ("hf:file", "is a file (write config:file)"),
        ("hf:./none", "no such folder, and no id of a repository (write hf:DIR or hf:org/repo)"),
        ("hf:no/such/folder", "no such folder, and no id of a repository (write hf:DIR or hf:org/repo)"),
        ("hf:", "no such folder, and no id of a repository (write hf:DIR or hf:org/repo)"),
        ("hf:empty?revision=main", "a folder has no revisions (leave 'revision' out)"),
    ],
)
def test_what_is_not_there(uri: str, message: str) -> None:
    Path("empty").mkdir()
    Path("file").touch()
    with pytest.raises(UnknownTarget) as caught:
        target(uri)
    assert str(caught.value) == f"{uri}: {message}"


class Hub(BaseHTTPRequestHandler):
    """A hub with one public repository, `some/bert`; others answer as the hub does."""

    asked: list[str]
    body = json.dumps(BERT).encode()

    def do_HEAD(self) -> None:
        self.asked.append(self.path)
        repository, _, rest = self.path.strip("/").partition("/resolve/")
        revision, _, name = rest.partition("/")
        error = {"some/gone": (404, "RepoNotFound"), "some/gated": (403, "GatedRepo"), "some/ill": (503, "")}
        status, code = error.get(repository, (200, ""))
        if status == 200 and revision != "main":
            status, code = 404, "RevisionNotFound"
        if status == 200 and (repository, name) != ("some/bert", "config.json"):
            status, code = 404, "EntryNotFound"
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("X-Repo-Commit", "a" * 40)
        self.send_header("ETag", '"' + "b" * 40 + '"')
        self.send_header("Content-Length", str(len(self.body) if status == 200 else 0))
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        self.wfile.write(self.body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[str]:
    Hub.asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def inspect(uri: str, endpoint: str, **environment: str) -> subprocess.CompletedProcess[str]:
    cache = {"HF_HOME": str(Path("home").resolve()), "HF_HUB_CACHE": str(Path("home/hub").resolve())}
    cleared = {"HF_HUB_OFFLINE": "", "HF_TOKEN": "", "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    return spawn("inspect", uri, "--json", HF_ENDPOINT=endpoint, **{**cache, **cleared, **environment})


def test_of_a_repository_the_config_alone_is_fetched_and_then_kept(hub: str) -> None:
    found = inspect("hf:some/bert?num_labels=7", hub)
    assert found.returncode == 0, found.stderr
    shapes = json.loads(found.stdout)["tensors"]
    assert shapes["classifier.weight"]["shape"] == [7, 32]
    assert {path.rpartition("/")[2] for path in Hub.asked} == {"config.json"}
    for endpoint, offline in ((UNREACHABLE, ""), (hub, "1")):
        Hub.asked.clear()
        again = inspect("hf:some/bert?num_labels=7", endpoint, HF_HUB_OFFLINE=offline)
        assert (again.returncode, again.stdout) == (0, found.stdout), again.stderr
        assert Hub.asked == []


@pytest.mark.parametrize(
    ("uri", "status", "message"),
    [
        ("hf:some/gone", 2, "no such folder, and no such repository on the hub (check the name; "),
        ("hf:some/bert?revision=v9", 2, "the repository has no revision 'v9'"),
        ("hf:some/weights", 2, "the repository has no config.json (name a file: config:FILE)"),
        ("hf:some/gated", 4, "the hub does not give this repository out (ask for access, and set HF_TOKEN)"),
        ("hf:some/ill", 4, "the hub answered 503 (try again)"),
    ],
)  # fmt: skip
def test_what_the_hub_does_not_give(hub: str, uri: str, status: int, message: str) -> None:
    found = inspect(uri, hub)
    assert found.stderr.startswith(f"error: {uri}: {message}") and found.stderr.count("\n") == 1
    assert found.returncode == status


@pytest.mark.parametrize("offline", ["", "1"])
def test_a_hub_that_cannot_be_reached_is_one_line_at_once(offline: str) -> None:
    found = inspect("hf:some/bert", UNREACHABLE, HF_HUB_OFFLINE=offline)
    assert found.returncode == 4
    (line,) = found.stderr.splitlines()
    reason = "HF_HUB_OFFLINE is set" if offline else "the hub cannot be reached"
    assert line.startswith("error: hf:some/bert: no such folder, ") and reason in line


def test_importing_and_listing_schemes_asks_nobody_and_loads_no_models() -> None:
    code = (
        "import sys, ckptfix.targets.hf, ckptfix.targets.config\n"
        "from ckptfix.targets import schemes; schemes()\n"
        "print([name for name in ('torch', 'transformers', 'huggingface_hub') if name in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert found.stdout == "[]\n", found.stderr


def test_a_seed_decides_the_initial_values() -> None:
    BertConfig(**SMALL, vocab_size=50, architectures=["BertModel"]).save_pretrained("bert")
    found = target("hf:bert")
    first, again, other = (found.must_build(seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)
    assert {tensor.device.type for tensor in first.values()} == {"cpu"}


def test_a_live_model_brings_its_config_under_all_its_names() -> None:
    config = target(GPT2Model(GPT2Config(n_embd=8, n_head=2, n_layer=1, vocab_size=9))).config
    assert (config["n_head"], config["num_attention_heads"], config["hidden_size"]) == (2, 2, 8)
