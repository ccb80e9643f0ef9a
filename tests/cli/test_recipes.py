"""`ckptfix recipes`: ls, show, cp; and a recipe by its name wherever one is taken."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ckptfix.pipeline import Step
from ckptfix.recipe import load_recipe
from ckptfix.recipes import list_recipes, recipe_path

from .running import call, save_net

NAME = "torchvision-timm-resnet"


def test_ls(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("recipes", "ls") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(list_recipes())
    assert lines[list_recipes().index(NAME)].endswith(f"  {load_recipe(NAME).description}")


def test_ls_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("recipes", "ls", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema_version"] == 1
    assert {"name": NAME, "description": load_recipe(NAME).description} in document["recipes"]
    assert [entry["name"] for entry in document["recipes"]] == list(list_recipes())


@pytest.mark.parametrize("name", list_recipes())
def test_show_prints_the_file(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("recipes", "show", name) == 0
    assert capsys.readouterr().out == recipe_path(name).read_text(encoding="utf-8")


def test_cp_copies_and_never_replaces(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "mine.yaml"
    assert call("recipes", "cp", NAME, out) == 0
    assert out.read_bytes() == recipe_path(NAME).read_bytes()
    out.write_text("mine")
    assert call("recipes", "cp", NAME, out) == 2
    assert "exists" in capsys.readouterr().err
    assert out.read_text() == "mine"


def test_cp_into_a_folder_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("recipes", "cp", NAME, tmp_path / "none" / "mine.yaml") == 4
    assert "no such file" in capsys.readouterr().err


@pytest.mark.parametrize("args", [["show", "torchvision-tim-resnet"], ["cp", "torchvision-tim-resnet", "x.yaml"]])
def test_an_unknown_name(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert call("recipes", *args) == 2
    error = capsys.readouterr().err
    assert "'torchvision-tim-resnet' is no shipped recipe" in error and NAME in error


def test_a_recipe_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_recipe(NAME).rules == load_recipe(recipe_path(NAME)).rules
    Path(NAME).write_text("ckptfix: 1\nrules: []\n")  # a file of that name goes first
    assert load_recipe(NAME).rules == ()


def test_a_misspelt_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_net(tmp_path / "net.pth")
    assert call("check", tmp_path / "net.pth", tmp_path / "net.pth", "-r", "torchvision-tim-resnet") == 2
    assert NAME in capsys.readouterr().err


def test_a_step_names_one(tmp_path: Path) -> None:
    step = Step(source="a.pth", target="b.pth", recipe=NAME, output="c.pth")
    assert step.resolve_paths(tmp_path).recipe == str(recipe_path(NAME))
    (tmp_path / NAME).touch()
    assert step.resolve_paths(tmp_path).recipe == str(tmp_path / NAME)
