"""Hostile recipes: each ends with exit 2 and lines that say where, at once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.trust import record

from .harness import ROOT, Server, Tally, breach_of

_ZIP = str(ROOT / "fixtures" / "zip.pth")
_HUGE = 10**12


def _rules(*rules: str) -> str:
    return "ckptfix: 1\nrules:\n" + "".join(f"  - {rule}\n" for rule in rules)


_ALIASES = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [*{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}]\n"
    for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)

_CASES = {
    # the document
    "an alias bomb": _ALIASES,
    "an alias that holds itself": "ckptfix: 1\nrules: &r [*r]\n",
    "a merge key": "ckptfix: 1\nx: &x {op: drop}\nrules:\n  - {<<: *x, keys: a}\n",
    "lists inside one another": "ckptfix: 1\nrules: " + "[" * 5_000 + "]" * 5_000,
    "maps inside one another": "ckptfix: 1\nrules: " + "{a: " * 5_000 + "}" * 5_000,
    "blocks inside one another": "".join(" " * n + "a:\n" for n in range(1_000)),
    "a key twice": "ckptfix: 1\nckptfix: 1\nrules: []\n",
    "a field twice": _rules("{op: drop, keys: a, keys: b}"),
    "a tag that makes an object": "ckptfix: 1\nrules: !!python/object/apply:os.system [true]\n",
    "a tag of its own": "ckptfix: !evil 1\nrules: []\n",
    "a NUL": "ckptfix: 1\nrules: []\n# \0\n",
    "a number of a million digits": "ckptfix: " + "9" * 1_000_000 + "\n",
    "a recipe of three megabytes": "ckptfix: 1\n#" + "x" * (3 << 20),
    "a recipe that is not UTF-8": b"ckptfix: 1\n# \xff\n",
    "two documents": "ckptfix: 1\nrules: []\n---\nckptfix: 1\n",
    "a version of the future": "ckptfix: 2\nrules: []\n",
    "thousands of empty rules": "ckptfix: 1\nrules: [" + "{}," * 3_000 + "]\n",
    # outputs
    "a resize to 10^12 elements": _rules(
        f"{{op: resize, keys: 4.bias, layout: n, axes: {{n: {_HUGE}}}, mode: linear}}"
    ),
    "a padding to 10^12 elements": _rules(f"{{op: resize, keys: 4.bias, layout: n, axes: {{n: {_HUGE}}}, mode: pad}}"),
    "a tiling to 10^12 elements": _rules(f"{{op: resize, keys: 4.bias, layout: n, axes: {{n: {_HUGE}}}, mode: tile}}"),
    "a resize of two axes": _rules(
        "{op: resize, keys: 0.weight, layout: o i h w, axes: {h: 1000000, w: 1000000}, mode: bicubic}"
    ),
    "a repetition": _rules(f'{{op: rearrange, from: 4.bias, to: other, layout: "n -> (r n)", sizes: {{r: {_HUGE}}}}}'),
    "a resize to 2^70 elements": _rules(f"{{op: resize, keys: 4.bias, layout: n, axes: {{n: {1 << 70}}}, mode: pad}}"),
    "a resize that a later rule drops": _rules(
        f"{{op: resize, keys: 4.bias, layout: n, axes: {{n: {_HUGE}}}, mode: pad}}", "{op: drop, keys: 4.bias}"
    ),
}


def test_faults_are_named(server: Server, tmp_path: Path) -> None:
    tally = Tally()
    for name, text in _CASES.items():
        folder = tmp_path / str(tally.inputs)
        folder.mkdir()
        recipe = folder / "recipe.yaml"
        recipe.write_bytes(text if isinstance(text, bytes) else text.encode())
        source = folder / "zip.pth"
        source.write_bytes(Path(_ZIP).read_bytes())
        lockfile = folder / "want.safetensors"
        lockfile.write_bytes((ROOT / "fixtures" / "tiny.safetensors").read_bytes())
        outcome = server.run(folder, ["ckptfix", "plan", str(source), f"shapes:{lockfile}", "-r", str(recipe)])
        fault = breach_of(outcome)
        errors = [line for line in outcome.err.splitlines() if not line.startswith("note: ")]
        if fault is None and outcome.status != 2:
            fault = f"it ended with {outcome.status}: {outcome.err[-300:]}"
        elif fault is None and not (errors and all(line.startswith("error: ") for line in errors)):
            fault = f"it said {outcome.err[:300]!r}"
        elif fault is None and (len(errors) > 30 or len(outcome.err) > 10_000):
            fault = f"it said {len(errors)} lines of {len(outcome.err)} characters"
        elif fault is None and f"{_HUGE}" in str(text) and "op: re" in str(text) and "recipe.yaml:3" not in outcome.err:
            fault = f"it does not name the rule: {outcome.err[:300]}"
        tally.add(name, outcome, fault)
    record("attacks-recipes", **tally.numbers())
    assert not tally.faults, "\n".join(tally.faults)


def test_a_catastrophic_expression_runs_in_linear_time(server: Server, tmp_path: Path) -> None:
    key = "a" * 3_000
    lockfile = tmp_path / "want.json"
    lockfile.write_text(json.dumps({"schema_version": 1, "tensors": {key: {"dtype": "F32", "shape": [1]}}}))
    header = json.dumps({key: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    source = tmp_path / "x.safetensors"
    source.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    for expression in ("(a+)+b", "(a|aa)+b", "(a*)*b", "(.*a){20}b", "(a|a)*b"):
        recipe = tmp_path / "recipe.yaml"
        recipe.write_text(_rules(f'{{op: drop, keys: "{{x:{expression}}}", optional: true}}'))
        outcome = server.run(tmp_path, ["ckptfix", "plan", str(source), f"shapes:{lockfile}", "-r", str(recipe)])
        assert breach_of(outcome) is None, (expression, breach_of(outcome))


@pytest.mark.parametrize("value", ["zeros", "normal"])
def test_a_target_of_10_to_the_12_elements_is_not_filled_unasked(value: str, server: Server, tmp_path: Path) -> None:
    lockfile, recipe = tmp_path / "want.json", tmp_path / "recipe.yaml"
    lockfile.write_text(json.dumps({"schema_version": 1, "tensors": {"w": {"dtype": "F32", "shape": [_HUGE]}}}))
    recipe.write_text(_rules('{op: drop, keys: "**"}', f"{{op: fill, keys: w, value: {value}}}"))
    source = tmp_path / "zip.pth"
    source.write_bytes(Path(_ZIP).read_bytes())
    argv = ["ckptfix", "plan", str(source), f"shapes:{lockfile}", "-r", str(recipe)]
    outcome = server.run(tmp_path, argv)
    assert breach_of(outcome) is None
    assert outcome.status == 2
    assert outcome.err == (
        f"error: {recipe}:4: fill: makes 'w' F32 [{_HUGE}] of 4,000,000,000,000 bytes; an output may take "
        "17,179,869,184 (--max-output SIZE allows more)\n"
    )
    assert server.run(tmp_path, [*argv, "--max-output", "5TB"]).status == 0
