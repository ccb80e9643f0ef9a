"""`ckptfix run`: done once, proved, found again, and never mistaken for another step's work."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import ckptfix
from ckptfix.cli.main import run
from ckptfix.errors import OutputExists, RecipeSchemaError, TrainingFailed, VerificationFailed
from ckptfix.pipeline import prepare

FINETUNE = {"data": "digits", "epochs": 3, "input": [1, 8, 8], "policies": ["frozen"], "threshold": 0.2}


def test_the_second_run_finds_the_first(step: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["run", str(step), "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    output = step.parent / "out" / "model.safetensors"
    written = output.stat().st_mtime_ns
    assert run(["run", str(step), "--json"]) == 0
    second = json.loads(capsys.readouterr().out)
    assert (first["cached"], second["cached"]) == (False, True)
    assert {**first, "cached": True} == second
    assert output.stat().st_mtime_ns == written
    assert first["checks"]["check"] == {"compatible": True, "loaded": 7, "filled": 2}
    source = torch.load(step.parent / "old.pth", weights_only=True)
    kept = load_file(output)
    assert all(torch.equal(kept[key], source[key]) for key in source if not key.startswith("5."))
    assert sorted(path.name for path in output.parent.iterdir()) == ["manifest.json", "model.safetensors", "report"]


def test_a_source_changed_by_one_byte_is_not_found(step: Path) -> None:
    prepare(step)
    source = step.parent / "old.pth"
    data = torch.load(source, weights_only=True)
    data["0.weight"].view(torch.uint8)[0, 0, 0, 0] ^= 1
    torch.save(data, source)
    with pytest.raises(OutputExists, match="another source"):
        prepare(step)
    again = prepare(step, force=True)
    assert not again.cached
    assert torch.equal(load_file(again.output)["0.weight"], data["0.weight"])
    assert prepare(step).cached


def test_a_source_of_several_files_changed_in_one_of_them_is_not_found(step: Path) -> None:
    old = step.parent / "old.pth"
    for source in ("shards/", "saved.dcp"):
        ckptfix.adapt(old, old, f"{step.parent}/{source}", max_shard_size=300)
        prepare(step, overrides={"source": source}, force=True)
        assert prepare(step, overrides={"source": source}).cached
        data = torch.load(old, weights_only=True)
        data["0.weight"].view(torch.uint8)[0, 0, 0, 0] ^= 1
        torch.save(data, old)
        ckptfix.adapt(old, old, f"{step.parent}/{source}", max_shard_size=300, existing="replace")
        with pytest.raises(OutputExists, match="another source"):
            prepare(step, overrides={"source": source})


@pytest.mark.parametrize(
    "change",
    [
        {"recipe.yaml": ("5.*", "5.{p}")},
        {"step.yaml": ("classes=3", "classes=4")},
        {"step.yaml": ("[2, 1, 8, 8]", "[1, 1, 8, 8]")},
        {"step.yaml": ("output: out", "dtype: BF16\noutput: out")},
        {"step.yaml": ("model.safetensors", "model.pth")},
    ],
)
def test_another_recipe_target_or_option_is_another_step(
    step: Path, change: dict[str, tuple[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(step)
    for name, (old, new) in change.items():
        path = step.parent / name
        path.write_text(path.read_text().replace(old, new))
    assert run(["run", str(step)]) == 2
    assert "--force" in capsys.readouterr().err
    assert run(["run", str(step), "--force"]) == 0
    assert prepare(step).cached


def test_the_folder_may_move(step: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    prepare(step)
    moved = tmp_path_factory.mktemp("moved") / "here"
    shutil.copytree(step.parent, moved)
    assert prepare(moved / "step.yaml").cached


@pytest.mark.parametrize("harm", ["flip", "cut", "remove"])
def test_a_damaged_output_is_made_again(step: Path, harm: str) -> None:
    output = prepare(step).output
    whole = output.read_bytes()
    if harm == "remove":
        output.unlink()
    else:
        output.write_bytes(whole[:-1] + (bytes([whole[-1] ^ 1]) if harm == "flip" else b""))
    again = prepare(step)
    assert not again.cached
    assert output.read_bytes() == whole


def test_a_failed_proof_leaves_no_output_but_its_report(step: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = torch.load(step.parent / "old.pth", weights_only=True)
    state["0.weight"][0] = float("nan")
    torch.save(state, step.parent / "old.pth")
    with pytest.raises(VerificationFailed, match="no finite output"):
        prepare(step)
    assert run(["run", str(step)]) == 1
    assert "Traceback" not in capsys.readouterr().err
    assert [path.name for path in (step.parent / "out").iterdir()] == ["report"]
    assert json.loads((step.parent / "out/report/verify.json").read_text())["forward"] is False


def test_a_failed_run_leaves_what_was_there(step: Path) -> None:
    prepare(step)
    output = step.parent / "out" / "model.safetensors"
    whole = output.read_bytes()
    with pytest.raises(TrainingFailed):
        prepare(step, overrides={"checks.finetune": {**FINETUNE, "threshold": 1.0}}, force=True)
    assert output.read_bytes() == whole
    assert prepare(step).cached


def test_the_dtype_is_kept_and_proved(step: Path) -> None:
    prepared = prepare(step, overrides={"dtype": "BF16"})
    assert load_file(prepared.output)["0.weight"].dtype == torch.bfloat16
    assert prepared.receipt.dtype == "BF16"
    verify = json.loads((step.parent / "out/report/verify.json").read_text())
    assert (verify["ok"], verify["values"]) == (True, True)


def test_the_source_is_never_the_output(step: Path) -> None:
    before = (step.parent / "old.pth").read_bytes()
    with pytest.raises(OutputExists, match="is the source itself"):
        prepare(step, overrides={"output": "old.pth"}, force=True)
    assert (step.parent / "old.pth").read_bytes() == before


def test_a_threshold_decides(step: Path) -> None:
    prepared = prepare(step, overrides={"checks.finetune": FINETUNE})
    assert prepared.manifest["checks"]["finetune"]["accuracy"]["frozen"] >= 0.2
    assert (step.parent / "out/report/curves.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(TrainingFailed, match=r"frozen reached an accuracy of 0\.\d+, the step asks for 0\.99"):
        prepare(step, overrides={"checks.finetune": {**FINETUNE, "threshold": {"frozen": 0.999}}}, force=True)


def test_fields_may_be_given_as_keywords(step: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(step.parent)
    prepared = ckptfix.prepare(
        source="old.pth",
        target="py:model.py:build?classes=3",
        recipe={"ckptfix": 1, "rules": [{"op": "drop", "keys": "**", "when": "mismatched"}, *_fill()]},
        output="made/model.pth",
        checks={"verify": False},
    )
    assert prepared.receipt.filled == {"5.weight", "5.bias"}
    assert prepared.manifest["checks"]["verify"] is None
    assert len(torch.load(prepared.output, weights_only=True)) == 9


def _fill() -> list[dict[str, str]]:
    return [{"op": "fill", "keys": "5.*", "value": "target"}]


def test_set_overrides_a_field(step: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["run", str(step), "--set", "output=elsewhere/m.safetensors", "--set", "checks.verify=false"]) == 0
    assert (step.parent / "elsewhere" / "m.safetensors").exists()
    assert run(["run", str(step), "--set", "source.x=1"]) == 2
    assert "--set: 'x' lies inside a value that is no mapping" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("source:", "sorce:", "step.yaml:3: unknown field 'sorce' (did you mean 'source'?)"),
        ("verify: {input", "verify: {inputs", "step.yaml:9: unknown field 'inputs'"),
        ("output: out/model.safetensors", "", "the field 'output' is missing"),
        ("output: out/model.safetensors", "output: out/model.onnx", "no format is written as '.onnx'"),
    ],
)
def test_a_wrong_document_is_one_line(
    step: Path, old: str, new: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    step.write_text(step.read_text().replace(old, new))
    assert run(["run", str(step)]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not (step.parent / "out").exists()


def test_a_threshold_for_a_policy_that_is_not_run_is_refused(step: Path) -> None:
    with pytest.raises(RecipeSchemaError, match="no policy 'unfrozen'"):
        prepare(step, overrides={"checks.finetune": {**FINETUNE, "threshold": {"unfrozen": 0.5}}})


def test_a_foreign_manifest_is_left_alone(step: Path, capsys: pytest.CaptureFixture[str]) -> None:
    foreign = step.parent / "out" / "manifest.json"
    foreign.parent.mkdir()
    foreign.write_text('{"name": "web app"}')
    assert run(["run", str(step), "--force"]) == 2
    assert "is not a manifest of ckptfix" in capsys.readouterr().err
    assert foreign.read_text() == '{"name": "web app"}'


def test_an_output_without_a_manifest_is_left_alone(step: Path) -> None:
    output = step.parent / "out" / "model.safetensors"
    output.parent.mkdir()
    output.write_bytes(b"mine")
    with pytest.raises(OutputExists):
        prepare(step)
    assert output.read_bytes() == b"mine"
