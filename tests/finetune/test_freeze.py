"""What a policy freezes, that it stays frozen, and that a drift is seen."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import Tensor, nn

from ckptfix.errors import InvalidCall, PatternError, UnmatchedPattern
from ckptfix.proof.freeze import digest_tensor, freeze, parse_policy


def take_steps(model: nn.Module, parameters: list[nn.Parameter], shape: tuple[int, ...] = (8, 1, 16, 16)) -> None:
    """Train on noise the way a user's own loop would: `model.train()` every epoch."""
    optimizer = torch.optim.AdamW(parameters, lr=0.1, weight_decay=0.1)
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        model.train()
        optimizer.zero_grad()
        model(torch.randn(shape, generator=generator)).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("text", ["frozen", "unfrozen", "scratch", "partial:features", "partial:features.0,head"])
def test_a_policy_keeps_the_text_that_the_user_wrote(text: str) -> None:
    assert str(parse_policy(text)) == text


@pytest.mark.parametrize("text", ["", "freeze", "frozen:head", "partial", "partial:", "unfrozen:"])
def test_what_is_no_policy_is_refused_with_an_offer(text: str) -> None:
    with pytest.raises(InvalidCall) as caught:
        parse_policy(text)
    assert "partial:" in str(caught.value)


def test_a_comma_inside_braces_belongs_to_the_pattern() -> None:
    policy = parse_policy("partial:features.{i:/[0-9]{1,2}/},head")
    assert [str(pattern) for pattern in policy.patterns] == ["features.{i:/[0-9]{1,2}/}", "head"]


@pytest.mark.parametrize("text", ["partial:a**b", "partial:{i:/(/}", "partial:head,"])
def test_a_pattern_that_cannot_be_read_is_refused_at_once(text: str) -> None:
    with pytest.raises(PatternError):
        parse_policy(text)


def test_frozen_trains_only_what_was_filled(net: nn.Module, head: frozenset[str]) -> None:
    frozen = freeze(net, "frozen", filled=head)
    assert set(frozen.trainable) == head
    assert set(frozen.keys) == set(net.state_dict()) - head
    assert "features.1.running_mean" in frozen.keys
    assert frozen.held == ("features.1", "features.4")
    assert {key for key, parameter in net.named_parameters() if parameter.requires_grad} == head


def test_nothing_frozen_moves_in_a_users_own_loop(net: nn.Module, head: frozenset[str]) -> None:
    frozen = freeze(net, "frozen", filled=head)
    before = frozen.digests()
    take_steps(net, frozen.parameters())
    assert frozen.drifted(before) == []
    assert all(not net.get_submodule(path).training for path in frozen.held)
    assert net.dropout.training


def test_without_the_hold_the_same_loop_drifts(net: nn.Module, head: frozenset[str]) -> None:
    frozen = freeze(net, "frozen", filled=head)
    before = frozen.digests()
    for path in frozen.held:
        del net.get_submodule(path).__dict__["train"]
    take_steps(net, frozen.parameters())
    drifted = frozen.drifted(before)
    assert {"features.1.running_mean", "features.4.running_var", "features.1.num_batches_tracked"} <= set(drifted)
    assert not any(key.endswith("weight") for key in drifted)


def test_a_gradient_left_over_cannot_move_a_frozen_parameter(net: nn.Module, head: frozenset[str]) -> None:
    net(torch.randn(4, 1, 16, 16)).sum().backward()
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    frozen = freeze(net, "frozen", filled=head)
    before = frozen.digests()
    optimizer.step()
    assert frozen.drifted(before) == []


class Counting(nn.Module):
    """Counts its calls in a buffer, in every mode."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.linear(x)


def test_a_buffer_that_moves_in_eval_mode_is_seen() -> None:
    model = nn.Sequential(Counting(), nn.Linear(4, 2))
    frozen = freeze(model, "partial:0")
    before = frozen.digests()
    take_steps(model, frozen.parameters(), shape=(8, 4))
    assert frozen.drifted(before) == ["0.calls"]


def test_spectral_norm_is_held_too() -> None:
    model = nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4)), nn.Linear(4, 2))
    frozen = freeze(model, "partial:0")
    before = frozen.digests()
    take_steps(model, frozen.parameters(), shape=(8, 4))
    assert frozen.drifted(before) == []
    assert any("_u" in key for key in frozen.keys)


def test_a_mixed_module_is_frozen_by_key(net: nn.Module) -> None:
    frozen = freeze(net, "frozen", filled={"features.0.weight", "features.1.weight", "head.bias"})
    assert set(frozen.trainable) == {"features.0.weight", "features.1.weight", "head.bias"}
    assert "features.1" in frozen.held


def test_the_hold_survives_copies_and_pickles(net: nn.Module, head: frozenset[str]) -> None:
    freeze(net, "frozen", filled=head)
    twin = copy.deepcopy(net)
    twin.train()
    assert not twin.features[1].training
    assert twin.features[1].train.__self__ is twin.features[1]
    file = io.BytesIO()
    torch.save(net, file)
    file.seek(0)
    assert torch.load(file, weights_only=False).state_dict().keys() == net.state_dict().keys()


def test_release_puts_everything_back(net: nn.Module, head: frozenset[str]) -> None:
    net.features[0].weight.requires_grad_(False)
    frozen = freeze(net, "frozen", filled=head)
    frozen.release()
    net.train()
    assert all(module.training for module in net.modules())
    assert [key for key, parameter in net.named_parameters() if not parameter.requires_grad] == ["features.0.weight"]


def test_a_second_policy_replaces_the_first(net: nn.Module, head: frozenset[str]) -> None:
    freeze(net, "frozen", filled=head)
    frozen = freeze(net, "unfrozen")
    net.train()
    assert frozen.keys == frozen.held == ()
    assert all(module.training for module in net.modules())
    assert len(frozen.parameters()) == len(list(net.parameters()))


@pytest.mark.parametrize(
    ("pattern", "held"),
    [
        ("features", ("features.1", "features.4")),
        ("features.{i:int}", ("features.1", "features.4")),
        ("features.0,features.1", ("features.1",)),
        ("*.4", ("features.4",)),
        ("head", ()),
    ],
)
def test_partial_freezes_the_named_modules_and_all_in_them(net: nn.Module, pattern: str, held: tuple[str, ...]) -> None:
    frozen = freeze(net, f"partial:{pattern}")
    assert frozen.held == held
    assert set(frozen.keys).isdisjoint(frozen.trainable)
    expected = {f"{path}.{name}" for path in held for name in net.get_submodule(path).state_dict()}
    assert expected <= set(frozen.keys)


def test_a_tied_tensor_is_frozen_under_both_keys() -> None:
    model = nn.ModuleDict({"embed": nn.Embedding(5, 3), "body": nn.Linear(3, 3), "out": nn.Linear(3, 5, bias=False)})
    model["out"].weight = model["embed"].weight
    frozen = freeze(model, "partial:embed")
    assert set(frozen.keys) == {"embed.weight", "out.weight"}
    assert set(frozen.trainable) == {"body.weight", "body.bias"}


@pytest.mark.parametrize(("filled", "reason"), [(None, "no receipt"), (frozenset(), "nothing filled")])
def test_frozen_without_anything_filled_offers_partial(
    net: nn.Module, filled: frozenset[str] | None, reason: str
) -> None:
    with pytest.raises(InvalidCall) as caught:
        freeze(net, "frozen", filled=filled)
    assert reason in str(caught.value)
    assert "partial:features or partial:head" in str(caught.value)
    assert all(parameter.requires_grad for parameter in net.parameters())


def test_only_buffers_filled_leaves_nothing_to_train(net: nn.Module) -> None:
    with pytest.raises(InvalidCall, match="leaves no parameter to train"):
        freeze(net, "frozen", filled={"features.1.num_batches_tracked"})


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("feature", "names no module (nearest: features"),
        ("features.0.weight", "names no module (a policy names modules, not tensors: 'features.0' owns"),
        ("features.2", "names only modules without tensors, as features.2"),
        ("zzz", "names no module (say which modules to freeze"),
    ],
)
def test_a_pattern_without_a_module_names_the_nearest(net: nn.Module, pattern: str, text: str) -> None:
    with pytest.raises(UnmatchedPattern) as caught:
        freeze(net, f"partial:{pattern}")
    assert text in str(caught.value)


def test_a_filled_key_that_the_net_lacks_is_refused(net: nn.Module) -> None:
    with pytest.raises(UnmatchedPattern, match=r"'head\.weights' was filled.*nearest: head\.weight"):
        freeze(net, "frozen", filled={"head.weights"})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.complex64])
def test_a_digest_is_of_the_elements_and_not_of_their_layout(dtype: torch.dtype) -> None:
    tensor = torch.arange(12).reshape(3, 4).to(dtype)
    assert digest_tensor(tensor) == digest_tensor(tensor.t().contiguous().t())
    assert digest_tensor(tensor) != digest_tensor(tensor.flip(0, 1).logical_not().to(dtype))
    assert len(digest_tensor(tensor[:0])) == len(digest_tensor(tensor[0, 0])) == 64
