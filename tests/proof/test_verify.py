"""`verify`: what is sound passes, and each kind of damage is found."""

from __future__ import annotations

import random
import sys
import types
import zlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ckptfix import adapt, verify
from ckptfix.cli.main import run
from ckptfix.errors import CkptfixError, UnmatchedPattern
from ckptfix.formats import open_checkpoint
from ckptfix.proof.verify import Verification

from .conftest import HEAD, Case


def by_source(case: Case, out: Path | None = None, recipe: str | None = None) -> Verification:
    return verify(
        out or case.out, case.target, source=case.source, recipe=recipe or case.recipe, input_shape=case.shape
    )


def read(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)


def save_plain(tensors: dict[str, torch.Tensor], path: Path) -> Path:
    """Write with the format's own library: no receipt."""
    save_file(tensors, path) if path.suffix == ".safetensors" else torch.save(tensors, path)
    return path


def test_a_sound_file(case: Case) -> None:
    for found in (by_source(case), verify(case.out, case.target, input_shape=case.shape)):
        assert found.to_json() == {
            "schema_version": 1,
            "ok": True,
            "strict_load": True,
            "values": True,
            "forward": True,
            "parity": None,
            "untried": [],
            "at_initialisation": ["head.weight", "head.bias"],
            "problems": [],
            "notes": [],
        }


def flip(path: Path, key: str, bit: int) -> None:
    """Flip one bit of a tensor; in a zip archive mend the checksums, as a writer that errs would have."""
    storage = open_checkpoint(path).tensors[key].storage
    data = bytearray(path.read_bytes())
    old = bytes(data[storage.offset : storage.offset + storage.nbytes])
    data[storage.offset + bit // 8] ^= 1 << bit % 8
    if path.suffix == ".pth":
        new = bytes(data[storage.offset : storage.offset + storage.nbytes])
        before, after = (zlib.crc32(part).to_bytes(4, "little") for part in (old, new))
        assert data.count(before) == 2
        data = data.replace(before, after)
    path.write_bytes(data)


@pytest.mark.parametrize("key", ["conv.weight", "norm.num_batches_tracked", "head.bias"])
def test_one_flipped_bit_is_found_by_the_receipt_and_by_the_source(key: str, case: Case) -> None:
    storage = open_checkpoint(case.out).tensors[key].storage
    flip(case.out, key, random.Random(key).randrange(storage.nbytes * 8 - 1))
    found = verify(case.out, case.target, input_shape=case.shape)
    assert (found.ok, found.values, found.strict_load) == (False, False, True)
    assert found.problems == (f"1 tensor unlike the receipt's digest: {key}",)
    found = by_source(case)
    assert (found.ok, found.values) == (False, False)
    assert found.problems == (f"1 tensor unlike what the source gives: {key}",)


def test_a_flipped_bit_in_an_archive_without_mended_checksums_is_refused(case: Case) -> None:
    storage = open_checkpoint(case.out).tensors["conv.weight"].storage
    data = bytearray(case.out.read_bytes())
    data[storage.offset] ^= 1
    case.out.write_bytes(data)
    if case.out.suffix == ".pth":
        with pytest.raises(CkptfixError, match="CRC-32"):
            verify(case.out, case.target, input_shape=case.shape)
    else:
        assert not verify(case.out, case.target, input_shape=case.shape).ok


def test_the_second_path_is_not_fooled_by_a_file_with_a_sound_receipt_of_wrong_values(case: Case, folder: Path) -> None:
    """A file that was made from other weights agrees with its own receipt, and not with the source."""
    other = folder / "other.pth"
    torch.save({key: tensor + 1 for key, tensor in case.tensors().items()}, other)
    adapt(other, case.target, case.out, case.recipe, existing="replace")
    assert verify(case.out, case.target, input_shape=case.shape).values is True
    found = by_source(case)
    assert (found.ok, found.values) == (False, False)
    assert found.problems == ("11 tensors unlike what the source gives: conv.weight, conv.bias, norm.weight, ...",)


def test_another_recipe(case: Case) -> None:
    found = by_source(case, recipe=HEAD.replace("value: target", "value: zeros"))
    assert found.problems == ("2 tensors unlike what the source gives: head.weight, head.bias",)
    incomplete = by_source(case, recipe=HEAD.replace('  - {op: fill, keys: "head.*", value: target}\n', ""))
    assert incomplete.problems[0] == "the recipe is not complete for this source and target"
    assert not incomplete.ok
    with pytest.raises(UnmatchedPattern):
        by_source(case, recipe='ckptfix: 1\nrules:\n  - {op: drop, keys: "tail.*"}\n')


def test_a_missing_key_and_one_too_many(case: Case) -> None:
    tensors = read(case.out)
    less = save_plain({key: t for key, t in tensors.items() if key != "left.bias"}, case.out.with_stem("less"))
    found = by_source(case, less)
    assert (found.ok, found.strict_load, found.forward) == (False, False, None)
    assert found.problems == (
        "1 tensor unlike what the source gives: left.bias",
        "a strict load would fail on 1 key: left.bias",
    )
    more = save_plain({**tensors, "extra": torch.zeros(1)}, case.out.with_stem("more"))
    assert by_source(case, more).problems == (
        "1 tensor not of the plan: extra",
        "a strict load would fail on 1 key: extra",
    )


def test_a_wrong_shape(case: Case) -> None:
    tensors = read(case.out) | {"head.bias": torch.zeros(4)}
    found = verify(save_plain(tensors, case.out.with_stem("wrong")), case.target, input_shape=case.shape)
    assert found.strict_load is False
    assert found.problems == ("a strict load would fail on 1 key: head.bias",)


def test_nan_weights_fail_the_forward_pass(case: Case) -> None:
    tensors = read(case.out)
    tensors["left.weight"] = torch.full_like(tensors["left.weight"], float("nan"))
    found = verify(save_plain(tensors, case.out.with_stem("nan")), case.target, input_shape=case.shape)
    assert (found.ok, found.strict_load, found.forward) == (False, True, False)
    assert found.problems == ("the forward pass on [2, 1, 6, 6] gave no finite output",)


def test_values_cannot_be_checked_without_digests(case: Case) -> None:
    plain = save_plain(read(case.out), case.out.with_stem("plain"))
    found = verify(plain, case.target, input_shape=case.shape)
    assert (found.ok, found.values, found.untried) == (True, None, ("values",))
    assert found.notes == ("no receipt: the values were not checked (give --source and -r)",)
    assert found.at_initialisation == ("head.weight", "head.bias")
    adapt(case.source, case.target, case.out, case.recipe, existing="replace", digests="none")
    found = verify(case.out, case.target, input_shape=case.shape)
    assert (found.ok, found.values) == (True, None)
    assert by_source(case).values is True


def test_what_was_not_tried_is_not_called_verified(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    plain = save_plain(read(case.out), case.out.with_stem("plain"))
    shape = ",".join(map(str, case.shape))
    ends = {
        (case.out, "--input", shape): "verified",
        (plain, "--input", shape): "verified strict load and forward pass; not verified, since not tried: values",
        (plain,): "verified strict load; not verified, since not tried: values and forward pass",
        (case.out,): "verified strict load and values; not verified, since not tried: forward pass",
    }
    for (out, *options), end in ends.items():
        assert run(["verify", str(out), case.target, *options]) == 0
        last = capsys.readouterr().out.splitlines()[-1]
        assert last.removeprefix("nothing failed: ") == end


def test_without_an_input_shape_the_forward_pass_is_not_tried(case: Case) -> None:
    found = verify(case.out, case.target)
    assert (found.ok, found.forward, found.untried) == (True, None, ("forward pass",))
    assert found.notes == ("no forward pass: the input's shape is unknown (give --input, as in --input 1,3,224,224)",)


def test_an_input_that_does_not_suit(case: Case) -> None:
    found = verify(case.out, case.target, input_shape=(1, 3, 6, 6))
    assert (found.ok, found.forward) == (False, False)
    assert found.problems[0].startswith("the forward pass on [1, 3, 6, 6] raised RuntimeError: ")


def test_shapes_alone_prove_the_keys(case: Case, folder: Path) -> None:
    found = verify(case.out, case.out)
    assert (found.ok, found.strict_load, found.values, found.forward) == (True, True, True, None)
    assert found.notes == (f"nothing was built: {case.out.name} holds shapes only",)


def test_a_partial_file_is_not_verified(case: Case) -> None:
    out = case.out.with_stem("partial")
    adapt(case.source, case.target, out, gaps="write")
    found = verify(out, case.target, input_shape=case.shape)
    assert (found.ok, found.values, found.strict_load) == (False, True, False)


@pytest.mark.parametrize("dtype", ["bfloat16", "float64", "float16"])
def test_a_model_of_another_dtype_is_run_in_it(dtype: str, case: Case) -> None:
    target = f"{case.target}&dtype={dtype}"
    found = verify(case.out, target, input_shape=case.shape)
    assert found.problems == () and found.forward is True


def test_a_checkpoint_of_float8_is_proved(case: Case, folder: Path) -> None:
    tensors = {key: t.to(torch.float8_e4m3fn) if t.is_floating_point() else t for key, t in case.tensors().items()}
    source = folder / "float8.pth"
    torch.save(tensors, source)
    out = case.out.with_stem("eight")
    adapt(source, case.origin, out)
    found = verify(out, case.origin, source=source, input_shape=case.shape)
    assert found.problems == () and found.values is True and found.at_initialisation == ()


def test_verifying_changes_neither_the_file_nor_the_generator(case: Case) -> None:
    before, state = case.out.read_bytes(), torch.get_rng_state()
    by_source(case)
    assert case.out.read_bytes() == before
    assert torch.equal(torch.get_rng_state(), state)


def test_a_source_that_torch_refuses_is_read_by_ckptfix_and_noted(case: Case, folder: Path) -> None:
    class Config:
        """A class that torch.load does not know."""

    Config.__module__, Config.__qualname__ = "elsewhere", "Config"
    sys.modules["elsewhere"] = types.ModuleType("elsewhere")
    sys.modules["elsewhere"].Config = Config
    try:
        torch.save({**case.tensors(), "config": Config()}, folder / "odd.pth")
    finally:
        del sys.modules["elsewhere"]
    found = verify(case.out, case.target, source=folder / "odd.pth", recipe=case.recipe, input_shape=case.shape)
    assert (found.ok, found.values) == (True, True)
    assert found.notes == (
        "torch.load(weights_only=True) refuses the file, which would call elsewhere.Config: "
        "ckptfix read it, and calls nothing",
    )


def test_what_neither_library_can_hold_is_a_plain_error(folder: Path) -> None:
    header = b'{"w":{"dtype":"F6_E2M3","shape":[4],"data_offsets":[0,3]}}'
    path = folder / "six.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"abc")
    adapt(path, path, folder / "out.safetensors")
    with pytest.raises(CkptfixError, match="computes with no dtype F6_E2M3"):
        verify(folder / "out.safetensors", path)
