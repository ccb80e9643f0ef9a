"""Which state dict of a file is meant."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch

from ckptfix.errors import AmbiguousSource, InvalidCall, MalformedFile, NoTensors
from ckptfix.formats import open_checkpoint, split_select, wrapper_prefixes

_W = torch.ones(2, 3)
_V = torch.zeros(4)


def _save(path: Path, value: Any) -> Path:
    torch.save(value, path)
    return path


def _keys(path: Path, value: Any, **select: str) -> list[str]:
    return list(open_checkpoint(_save(path, value), **select).tensors)


def test_takes_the_root_with_the_mappings_in_it(tmp_path: Path) -> None:
    value = {"w": _W, "encoder": {"v": _V, "deep": {"u": _V}}, "version": 3, "stats": [_V, _V], "names": ["a", "b"]}
    checkpoint = open_checkpoint(_save(tmp_path / "x.pth", value))
    assert list(checkpoint.tensors) == ["w", "encoder.v", "encoder.deep.u", "stats.0", "stats.1"]
    assert checkpoint.select == ""
    assert checkpoint.ignored == ("version", "names")
    assert checkpoint.candidates == (("", 5, 24 + 4 * 16),)


def test_searches_mappings_and_lists(tmp_path: Path) -> None:
    value = {"epoch": 1, "nets": [{"meta": 1}, {"inner": {"w": _W}}]}
    checkpoint = open_checkpoint(_save(tmp_path / "x.pth", value))
    assert checkpoint.select == "nets.1.inner"
    assert list(checkpoint.tensors) == ["w"]


def test_an_optimizer_is_never_chosen(tmp_path: Path) -> None:
    optimizer = {"state": {0: {"exp_avg": _W}}, "param_groups": [{"lr": 1, "params": [0]}]}
    checkpoint = open_checkpoint(_save(tmp_path / "x.pth", {"optimizer": optimizer, "model": {"w": _W}}))
    assert checkpoint.select == "model"
    assert checkpoint.optimizers == ("optimizer",)
    # Nor does it belong to the state dict that it lies in.
    checkpoint = open_checkpoint(_save(tmp_path / "y.pth", {"w": _W, "optimizer": optimizer}))
    assert list(checkpoint.tensors) == ["w"]
    assert checkpoint.ignored == ("optimizer",)
    assert _keys(tmp_path / "z.pth", {"optimizer": optimizer}, select="optimizer") == ["state.0.exp_avg"]
    with pytest.raises(NoTensors, match="holds no state dict"):
        open_checkpoint(tmp_path / "z.pth")


def test_several_must_be_chosen_from(tmp_path: Path) -> None:
    path = _save(tmp_path / "x.pth", {"model": {"w": _W}, "model_ema": {"w": _W, "v": _V}, "epoch": 3})
    with pytest.raises(AmbiguousSource) as caught:
        open_checkpoint(path)
    assert str(caught.value) == (
        f"{path}: holds 2 state dicts: #model (1 tensor, 24 bytes), #model_ema (2 tensors, 40 bytes)"
        " (say which: x.pth#model)"
    )
    for checkpoint in (open_checkpoint(f"{path}#model_ema"), open_checkpoint(path, select="model_ema")):
        assert checkpoint.select == "model_ema"
        assert list(checkpoint.tensors) == ["w", "v"]
        assert [candidate.path for candidate in checkpoint.candidates] == ["model", "model_ema"]
    assert list(open_checkpoint(f"{path}#.").tensors) == ["model.w", "model_ema.w", "model_ema.v"]
    assert open_checkpoint(f"{path}#.").ignored == ("epoch",)


def test_what_a_trainer_notes_is_no_state_dict(tmp_path: Path) -> None:
    value = {
        "best": torch.tensor(0.9),
        "rng": torch.get_rng_state(),
        "state_dict": {"w": _W},
        "callbacks": {"c": {"score": torch.tensor(1.0)}},
    }
    assert open_checkpoint(_save(tmp_path / "x.pth", value)).select == "state_dict"
    # Where there is nothing else they are.
    assert _keys(tmp_path / "y.pth", {"scale": torch.tensor(1.0), "more": {"bias": torch.tensor(2.0)}}) == [
        "scale",
        "more.bias",
    ]


def test_paths_reach_through_keys_with_dots_and_lists(tmp_path: Path) -> None:
    path = _save(tmp_path / "x.pth", {"a.b": {"c": {"w": _W}}, "a": [{"v": _V}, {"w": _W}]})
    assert list(open_checkpoint(f"{path}#a.b.c").tensors) == ["w"]
    assert list(open_checkpoint(f"{path}#a.1").tensors) == ["w"]
    assert list(open_checkpoint(f"{path}#a[1]").tensors) == ["w"]
    assert list(open_checkpoint(f"{path}#a").tensors) == ["0.v", "1.w"]


def test_a_path_that_leads_nowhere_names_the_nearest(tmp_path: Path) -> None:
    path = _save(tmp_path / "x.pth", {"model": {"w": _W}, "model_ema": {"w": _W}, "epoch": 3, "empty": {}})
    with pytest.raises(InvalidCall, match=r"has nothing at #model_em .*#model_ema \(1 tensor,"):
        open_checkpoint(f"{path}#model_em")
    with pytest.raises(InvalidCall, match=r"#model.w is one tensor, F32 \[2, 3\]"):
        open_checkpoint(f"{path}#model.w")
    for empty in ("epoch", "empty"):
        with pytest.raises(NoTensors, match=f"no tensor under #{empty}"):
            open_checkpoint(f"{path}#{empty}")
    with pytest.raises(InvalidCall, match="recipe selects 'model'"):
        open_checkpoint(f"{path}#model_ema", select="model")


def test_two_tensors_with_one_key_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MalformedFile, match=r"two tensors have the key 'a\.b'"):
        open_checkpoint(_save(tmp_path / "x.pth", {"w": _W, "a.b": _V, "a": {"b": _V}}))
    with pytest.raises(MalformedFile, match="two tensors have the key 'w'"):
        open_checkpoint(_save(tmp_path / "y.pth", {"w": _W, b"w": _V}))


def test_keys_that_are_not_text(tmp_path: Path) -> None:
    with pytest.raises(NoTensors, match=r"append #\."):
        open_checkpoint(_save(tmp_path / "x.pth", {0: _W, 1: _V}))
    assert list(open_checkpoint(f"{tmp_path / 'x.pth'}#.").tensors) == ["0", "1"]
    with pytest.raises(MalformedFile, match="not Unicode"):
        open_checkpoint(_save(tmp_path / "y.pth", {"\ud800": _W}))


@pytest.mark.parametrize("value", [_W, [], {}, 3, {"a": "text"}, None, [1, {"b": ()}]])
def test_nothing_to_choose(value: object, tmp_path: Path) -> None:
    with pytest.raises(NoTensors):
        open_checkpoint(_save(tmp_path / "x.pth", value))


def test_tensors_inside_unknown_objects_stay_reachable(tmp_path: Path) -> None:
    path = _save(tmp_path / "x.pth", {"args": argparse.Namespace(lr=0.1, inner=argparse.Namespace(prior=_W))})
    checkpoint = open_checkpoint(path)
    assert checkpoint.select == "args.inner"
    assert list(checkpoint.tensors) == ["prior"]
    assert [at for at, _ in checkpoint.opaque] == ["args", "args.inner"]


def test_tied_keys_are_listed(tmp_path: Path) -> None:
    base = torch.arange(6.0)
    value = {"a": base, "b": base, "head": base[:3], "view": base.view(2, 3), "copy": base.clone(), "c": base[:3]}
    assert open_checkpoint(_save(tmp_path / "x.pth", value)).aliases == (("a", "b"), ("head", "c"))


def test_wrapper_prefixes_are_reported_only_where_all_keys_have_them() -> None:
    assert wrapper_prefixes(["module._orig_mod.a.w", "module._orig_mod.b"]) == ("module.", "_orig_mod.")
    assert wrapper_prefixes(["_orig_mod.module.a"]) == ("_orig_mod.", "module.")
    assert wrapper_prefixes(["module.a", "b"]) == ()
    assert wrapper_prefixes(["modules.a"]) == ()
    assert wrapper_prefixes([]) == ()


def test_a_hash_may_belong_to_the_file_name(tmp_path: Path) -> None:
    path = _save(tmp_path / "x#1.pth", {"a": {"w": _W}, "b": {"w": _W}})
    assert split_select(path) == (path, None)
    assert split_select(f"{path}#b") == (path, "b")
    assert list(open_checkpoint(f"{path}#b").tensors) == ["w"]
    assert split_select("nowhere.pth#a#b") == (Path("nowhere.pth"), "a#b")
    assert split_select("x" * 5000 + "#a") == (Path("x" * 5000), "a")
