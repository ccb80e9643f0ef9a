"""`load_into`: all or nothing, and what it replaces fails."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ckptfix import load_into
from ckptfix.errors import (
    CkptfixError,
    IncompletePlan,
    SourceNotFound,
    TargetBuildError,
    TiedConflict,
    UnmatchedPattern,
)

HEAD = 'ckptfix: 1\nrules:\n  - {op: drop, keys: "fc.*"}\n  - {op: fill, keys: "fc.*", value: target}\n'


class Net(nn.Module):
    """A stem whose name contains the head's: `fc_norm` and `fc`."""

    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        self.fc_norm = nn.BatchNorm1d(3)
        self.fc = nn.Linear(3, classes)


def test_a_state_dict_in_memory_is_no_file() -> None:
    with pytest.raises(CkptfixError, match=r"^a checkpoint is a file, not a OrderedDict \(give its path\)$"):
        load_into(Net(), Net().state_dict())  # type: ignore[arg-type]


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wte = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.wte.weight


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    return {key: tensor.clone() for key, tensor in module.state_dict().items()}


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    path = tmp_path / "net.pth"
    net = Net(2)
    net.fc_norm.running_mean.fill_(3)
    torch.save(net.state_dict(), path)
    return path


def test_it_loads_and_reports(saved: Path) -> None:
    net = Net(2)
    report = load_into(net, saved)
    assert report.compatible and report.tensors == report.params == 1
    assert str(report) == "7 of 7 tensors loaded"
    assert same(net.state_dict(), torch.load(saved))


def test_a_filled_key_keeps_the_live_value(saved: Path) -> None:
    net = Net(9)
    before = snapshot(net)
    weight = net.fc.weight
    report = load_into(net, saved, HEAD)
    assert report.filled == report.dropped == ("fc.weight", "fc.bias")
    assert (len(report.loaded), report.tensors) == (5, 5 / 7)
    assert net.fc.weight is weight
    assert torch.equal(net.fc.weight, before["fc.weight"])
    assert torch.equal(net.fc_norm.running_mean, torch.full((3,), 3.0))


@pytest.mark.parametrize(
    ("classes", "recipe", "error"),
    [
        (9, None, IncompletePlan),
        (9, 'ckptfix: 1\nrules:\n  - {op: drop, keys: "fc.*"}\n', IncompletePlan),
        (2, 'ckptfix: 1\nrules:\n  - {op: drop, keys: "head.*"}\n', UnmatchedPattern),
        (2, {"ckptfix": 1, "rules": [{"op": "dorp"}]}, CkptfixError),
    ],
)
def test_the_module_is_untouched_unless_all_is_accounted_for(
    classes: int, recipe: object, error: type[CkptfixError], saved: Path
) -> None:
    net = Net(classes)
    before = snapshot(net)
    with pytest.raises(error):
        load_into(net, saved, recipe)
    assert same(net.state_dict(), before)


def test_a_tensor_too_many_or_too_few(saved: Path, tmp_path: Path) -> None:
    tensors = torch.load(saved)
    torch.save({**tensors, "extra": torch.zeros(1)}, tmp_path / "more.pth")
    torch.save({key: tensor for key, tensor in tensors.items() if key != "fc.bias"}, tmp_path / "less.pth")
    net = Net(2)
    before = snapshot(net)
    for name, message in (("more.pth", "1 unexpected"), ("less.pth", "1 missing")):
        with pytest.raises(IncompletePlan, match=message):
            load_into(net, tmp_path / name)
    with pytest.raises(SourceNotFound):
        load_into(net, tmp_path / "none.pth")
    assert same(net.state_dict(), before)


def test_a_damaged_tensor_leaves_the_module_untouched(saved: Path) -> None:
    data = bytearray(saved.read_bytes())
    position = data.index(torch.load(saved)["fc.weight"].numpy().tobytes())
    data[position] ^= 1
    saved.write_bytes(data)
    net = Net(2)
    before = snapshot(net)
    with pytest.raises(CkptfixError, match="CRC-32"):
        load_into(net, saved)
    assert same(net.state_dict(), before)


def test_a_module_on_the_meta_device_is_really_filled(saved: Path) -> None:
    with torch.device("meta"):
        net = Net(2).half()
    net.fc.weight.requires_grad_(False)
    load_into(net, saved)
    assert same(
        net.state_dict(), {key: t.half() if t.is_floating_point() else t for key, t in torch.load(saved).items()}
    )
    assert not net.fc.weight.requires_grad and net.fc.bias.requires_grad
    assert isinstance(net.fc.weight, nn.Parameter)
    with torch.device("meta"):
        hollow = Net(9)
    with pytest.raises(TargetBuildError, match="is on the meta device"):
        load_into(hollow, saved, HEAD)


def test_a_meta_buffer_that_no_state_dict_holds_is_refused(saved: Path) -> None:
    with torch.device("meta"):
        net = Net(2)
        net.register_buffer("positions", torch.arange(4), persistent=False)
    with pytest.raises(TargetBuildError, match="the buffer 'positions' is on the meta device"):
        load_into(net, saved)
    assert net.fc.weight.is_meta


def test_a_live_dtype_is_kept(saved: Path) -> None:
    net = Net(2).double()
    report = load_into(net, saved)
    assert {row.key for row in report.dtypes} >= {"fc.weight", "fc.bias"}
    assert torch.equal(net.fc.weight, torch.load(saved)["fc.weight"].double())


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_tied_parameters_stay_tied(device: str, tmp_path: Path) -> None:
    with torch.device(device):
        net = Tied()
    one = torch.arange(15.0).reshape(5, 3)
    torch.save({"wte.weight": one, "head.weight": one.clone()}, tmp_path / "equal.pth")
    load_into(net, tmp_path / "equal.pth")
    assert net.head.weight is net.wte.weight
    assert torch.equal(net.head.weight, one)
    torch.save({"wte.weight": one + 1, "head.weight": one + 2}, tmp_path / "apart.pth")
    with pytest.raises(TiedConflict, match="given different bytes"):
        load_into(net, tmp_path / "apart.pth")
    assert torch.equal(net.head.weight, one)


def test_extra_state_is_kept(tmp_path: Path) -> None:
    class Extra(nn.Linear):
        def get_extra_state(self) -> dict[str, int]:
            return {"calls": 3}

        def set_extra_state(self, state: dict[str, int]) -> None:
            self.loaded = state

    torch.save({"weight": torch.ones(2, 2), "bias": torch.ones(2)}, tmp_path / "linear.pth")
    net = Extra(2, 2)
    load_into(net, tmp_path / "linear.pth")
    assert torch.equal(net.weight, torch.ones(2, 2)) and net.loaded == {"calls": 3}


def load_by_numel(module: nn.Module, state: dict[str, Tensor]) -> None:
    """The popular filter: keep what has as many elements."""
    own = module.state_dict()
    kept = {key: value for key, value in state.items() if value.numel() == own[key].numel()}
    module.load_state_dict(kept, strict=False)


def test_comparing_numel_lets_a_transposed_matrix_pass() -> None:
    turned = {"weight": torch.zeros(3, 5)}
    net = nn.Linear(3, 5, bias=False)
    assert turned["weight"].numel() == net.weight.numel()
    with pytest.raises(RuntimeError, match="size mismatch"):
        load_by_numel(net, turned)  # the filter let it through; torch had to stop it


def test_comparing_numel_crashes_on_a_key_that_the_net_lacks() -> None:
    with pytest.raises(KeyError, match="extra"):
        load_by_numel(nn.Linear(3, 5), {"extra": torch.zeros(1)})


def test_ckptfix_compares_shapes_and_keeps_count(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(3, 5), "extra": torch.zeros(1)}, tmp_path / "turned.pth")
    recipe = """\
ckptfix: 1
rules:
  - {op: drop, keys: "**", when: mismatched}
  - {op: drop, keys: "**", when: unexpected}
  - {op: fill, keys: "**", value: target}
"""
    net = nn.Linear(3, 5, bias=False)
    before = snapshot(net)
    report = load_into(net, tmp_path / "turned.pth", recipe)
    assert (report.dropped, report.filled, report.loaded) == (("weight", "extra"), ("weight",), ())
    assert same(net.state_dict(), before)


def test_a_substring_hits_names_that_merely_contain_it(saved: Path) -> None:
    popular = {key: value for key, value in torch.load(saved).items() if "fc" not in key}
    assert popular == {}  # the whole normalisation went with the head
    net = Net(9)
    load_into(net, saved, HEAD)
    assert torch.equal(net.fc_norm.running_mean, torch.full((3,), 3.0))
