"""Models that one side holds more than once: averages and teachers in a file, equal branches of a target."""

from __future__ import annotations

import pytest

from ckptfix.inference.branches import find_branches
from ckptfix.inference.copies import choose_copy, find_copies, find_replaced
from ckptfix.inference.scoring import Allowed
from ckptfix.inference.settle import Answer, settle
from tests.inference.sides import Shapes, fused, split
from tests.language.making import manifest

KEYS = len(split())


def below(*prefixes: str, shapes: Shapes | None = None) -> Shapes:
    """Repeat a model below each prefix."""
    return {f"{prefix}.{key}": shape for prefix in prefixes for key, shape in (shapes or fused()).items()}


def used(answer: Answer) -> set[str]:
    """Give the source keys that were used."""
    return {key for link in answer.links for key in link.source_keys}


def settled(have: Shapes, want: Shapes) -> Answer:
    return settle(manifest(have), manifest(want), Allowed())


def test_an_average_beside_the_model_is_dropped() -> None:
    have = below("ema", "model")
    copies = find_copies(manifest(have), manifest(split()))
    assert list(copies) == ["ema", "model"] and choose_copy(copies, split()) == "model"
    answer = settled(have, split())
    assert used(answer) == set(below("model"))
    assert set(answer.unused) == {key for key in have if key.startswith("ema.")}
    assert answer.notes == ["the file holds the model 2 times: 'model' is used, 'ema' dropped"]


@pytest.mark.parametrize(
    ("heads", "trained"),
    [
        (("teacher", "student"), "student"),
        (("module", "ema_model"), "module"),
        (("netG", "netG_ema"), "netG"),
        (("k", "q"), "q"),
        (("module.encoder_k", "module.encoder_q"), "module.encoder_q"),
        (("module.momentum_encoder", "module.base_encoder"), "module.base_encoder"),
        (("state_dict.teacher", "state_dict.student"), "state_dict.student"),
        (("teacher.module", "state_dict.student"), "state_dict.student"),
        (("policy_old", "policy"), "policy"),
        (("ema", "encoder"), "encoder"),
        (("visual_m", "visual"), "visual"),
        (("target_net", "online_net", "swa"), "online_net"),
        (("a", "b"), None),
        (("models.0", "models.1", "models.2"), None),
        (("key_encoder", "value_encoder"), None),
        (("source_encoder", "target_encoder"), None),
        (("module.query_encoder", "module.passage_encoder"), None),
        (("image_encoder", "text_encoder"), None),
    ],
)
def test_the_trained_copy_is_chosen(heads: tuple[str, ...], trained: str | None) -> None:
    have = {**below(*heads), "queue": (8, 64), "queue_ptr": (1,)}
    copies = find_copies(manifest(have), manifest(split()))
    known = {head.removesuffix(".module") for head in heads}
    assert set(copies) == known and choose_copy(copies, split()) == trained
    answer = settled(have, split())
    if trained:
        assert used(answer) == set(below(trained))
        assert [note.partition(": ")[2].partition(" is")[0] for note in answer.notes] == [f"'{trained}'"]
        assert sum(len(link.target_keys) for link in answer.links) == KEYS
    else:
        listed = ", ".join(map(repr, copies))
        assert not answer.links and len(answer.ambiguous) == KEYS
        reason = f"the file holds the model {len(heads)} times, as {listed}: drop all but one"
        assert {doubt.why for doubt in answer.ambiguous} == {reason}


@pytest.mark.parametrize(
    ("heads", "scope", "named"),
    [
        (("student", "teacher"), "teacher", "teacher"),
        (("net.base_encoder", "net.momentum_encoder"), "momentum_encoder", "net.momentum_encoder"),
        (("policy", "policy_old"), "policy_old", "policy_old"),
        (("visual", "text"), "vision_model", "visual"),
        (("query_encoder", "passage_encoder"), "passage_model", "passage_encoder"),
        (("models.0", "models.1"), "models.1", "models.1"),
    ],
)
def test_the_copy_that_the_target_names_is_chosen(heads: tuple[str, ...], scope: str, named: str) -> None:
    answer = settled(below(*heads), below(scope, shapes=split()))
    assert used(answer) == set(below(named))
    assert sum(len(link.target_keys) for link in answer.links) == KEYS


def test_what_is_beside_the_copies_is_kept() -> None:
    head: Shapes = {"fc.weight": (7, 8), "fc.bias": (7,)}
    have = {**below("student", "teacher"), **head}
    answer = settled(have, {**below("backbone", shapes=split()), **head})
    assert {link.target_keys: link.source_keys for link in answer.links if link.target_keys[0].startswith("fc.")} == {
        (key,): (key,) for key in head
    }
    assert not answer.filled and used(answer) == {*below("student"), *head}


def test_a_copy_may_lack_a_predictor_and_have_counters() -> None:
    predictor: Shapes = {"student.predictor.0.weight": (8, 8), "student.predictor.1.weight": (8, 8)}
    have = {**below("student", "teacher"), **predictor, "teacher.decay": (), "teacher.updates": ()}
    assert list(find_copies(manifest(have), manifest(split()))) == ["student", "teacher"]
    have |= {"teacher.center": (1, 8)}
    answer = settled(have, split())
    assert used(answer) == set(below("student"))


def test_equal_blocks_of_two_towers_are_no_copies() -> None:
    patches: Shapes = {"visual.patches.weight": (8, 3, 4, 4), "visual.patches.bias": (8,)}
    blocks = {key: shape for key, shape in fused().items() if key.startswith("h.")}
    have = {**below("visual", "text", shapes=blocks), **patches, "text.wte.weight": (50, 8)}
    assert find_copies(manifest(have), manifest(blocks)) == {}


def test_an_average_whose_names_have_no_dots() -> None:
    have = below("model")
    have |= {f"model_ema.{key.replace('.', '')}": shape for key, shape in fused().items()}
    answer = settled(have, split())
    assert answer.notes == ["the file holds the model 2 times: 'model' is used, 'model_ema' dropped"]
    assert len(answer.links) == len(fused())


def test_copies_inside_copies() -> None:
    have = below("critic.q0", "critic.q1", "critic_target.q0", "critic_target.q1")
    answer = settled(have, split())
    reason = "the file holds the model 2 times, as 'critic.q0', 'critic.q1': drop all but one"
    assert {doubt.why for doubt in answer.ambiguous} == {reason} and not answer.links


def test_towers_and_parts_of_a_model_are_no_copies() -> None:
    towers = manifest(below("net.left", "net.right"))
    assert find_copies(towers, towers) == {}
    assert find_copies(manifest(fused()), manifest(fused())) == {}
    parts = manifest(below("mae.blocks", "mae.decoder_blocks"))
    assert find_copies(parts, manifest(split())) == {}
    layer = {"weight": (8, 8), "bias": (8,)}
    assert find_copies(manifest(below("left", "right", shapes=layer)), manifest(layer)) == {}
    distilled = manifest(below("student") | below("teacher", shapes=fused(6)))
    assert find_copies(distilled, manifest(split())) == {}


def test_copies_of_another_model_are_not_spoken_of() -> None:
    other = {f"{net}.{i}.weight": (90, 90) for net in ("left", "right") for i in range(2 * KEYS)}
    answer = settled({**other, **below("net")}, split())
    assert len(answer.links) == len(fused()) and not answer.ambiguous
    assert answer.notes == [f"'left' is not used: {2 * KEYS} tensors"]


def test_a_module_that_peft_trained_replaces_the_original() -> None:
    at = "base_model.model"
    have = below(at)
    have |= {f"{at}.score.{name}.weight": (5, 8) for name in ("original_module", "modules_to_save.default")}
    saved = f"{at}.score.modules_to_save.default.weight"
    answer = settled(have, {**split(), "score.weight": (5, 8)})
    assert {link.source_keys for link in answer.links if link.target_keys == ("score.weight",)} == {(saved,)}
    assert answer.unused == [f"{at}.score.original_module.weight"]
    assert len(answer.notes) == 1 and "'modules_to_save' is used" in answer.notes[0]
    assert find_replaced(have, have) == {}


@pytest.mark.parametrize(
    ("have", "heads"),
    [
        (fused(), ("members.0", "members.1", "members.2")),
        (fused(), ("branch1", "branch2")),
        (fused(), ("left", "right")),
        (below("visual"), ("vit", "text")),
    ],
)
def test_equal_branches_stay_open_together(have: Shapes, heads: tuple[str, ...]) -> None:
    want = below(*heads, shapes=split())
    answer = settled(have, want)
    assert not answer.links and not answer.copied and not answer.filled
    assert {doubt.target for doubt in answer.ambiguous} | answer.unresolved.keys() == want.keys()


def test_mere_layers_are_no_branches() -> None:
    recurrent = {f"{name}.weight_{part}": (8, 8) for name in ("left", "right") for part in ("ih", "hh", "hr")}
    pairs = {f"{name}.{part}.weight": (8, 8) for name in ("left", "right") for part in ("up", "down")}
    assert find_branches(manifest(recurrent)) == find_branches(manifest(pairs)) == []


@pytest.mark.parametrize(
    ("source", "heads", "made"),
    [
        ("visual", ("image", "text"), "image"),
        ("online", ("net.online_net", "net.target_net"), "net.online_net"),
        ("q_net", ("q_net", "q_net_target"), "q_net"),
        ("trunk", ("network", "teacher"), "network"),
    ],
)
def test_a_branch_that_is_called_like_its_source_is_made(source: str, heads: tuple[str, ...], made: str) -> None:
    answer = settled(below(source), below(*heads, shapes=split()))
    targets = {key for link in answer.links for key in link.target_keys}
    assert targets == set(below(made, shapes=split())) and not answer.copied and not answer.ambiguous


def test_branches_that_share_their_tensors_are_one() -> None:
    want = below("left", "right", shapes=split())
    assert find_branches(manifest(want)) != []
    tied = tuple((f"left.{key}", f"right.{key}") for key in split())
    shared = manifest(want, tied=tied)
    assert not any({"left", "right"} <= branches.keys() for branches in find_branches(shared))
    answer = settle(manifest(below("left")), shared, Allowed())
    assert len(answer.copied) == KEYS and not answer.ambiguous
