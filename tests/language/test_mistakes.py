"""Ten mistakes that recipes have, and what is said of them, word for word: where, what, and what would mend it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ckptfix.errors import CkptfixError
from ckptfix.planning import make_plan
from ckptfix.recipe import load_recipe

from .making import manifest

HAVE = {
    "layers.0.q_proj.weight": [16, 4],
    "layers.0.k_proj.weight": [8, 4],
    "experts.0.up": [6, 4],
    "experts.1.up": [6, 4],
    "experts.2.up": [6, 4],
    "experts.0.gate": [6, 4],
    "experts.2.gate": [6, 4],
    "fc.weight": [5, 4],
    "fc.bias": [5],
    "head.weight": [5, 4],
}
MISTAKES = {
    "ambiguous size": (
        """\
ckptfix: 1
rules:
  - op: rearrange
    keys: "**.q_proj.weight"
    layout: "(h two d) i -> (h d two) i"
    sizes: {two: 2}
""",
        "recipe.yaml:3: rearrange: 'layers.0.q_proj.weight': the size of 'h' does not follow from (h two d) = 16 "
        "(give it: sizes: {h: ...})",
    ),
    "incomplete group": (
        """\
ckptfix: 1
rules:
  - {op: drop, keys: "fc.*"}
  - op: rearrange
    from: ["experts.{e}.gate", "experts.{e}.up"]
    to: experts.gate_up
    layout: "e g c, e u c -> e (g+u) c"
""",
        "recipe.yaml:4: rearrange: incomplete group: 'experts.{e}.gate' has 2 of 3 keys, none at e = 1 "
        "(nearest to 'experts.1.gate': experts.0.gate, experts.2.gate, experts.1.up; "
        "drop the keys without partners first, or narrow the pattern)",
    ),
    "collision": (
        """\
ckptfix: 1
rules:
  - op: rename
    map: {"fc.{p}": "head.{p}"}
""",
        "recipe.yaml:3: rename: rule 1 makes 'head.weight' from 'fc.weight', which is already there, made by the "
        "checkpoint itself (drop or rename one of them first)",
    ),
    "unmatched rule": (
        """\
ckptfix: 1
rules:
  - {op: drop, keys: "fc.*"}
  - {op: drop, keys: head.wieght}
""",
        "recipe.yaml:4: drop: 'head.wieght' matches no key (nearest: head.weight)",
    ),
    "wrong axis name": (
        """\
ckptfix: 1
rules:
  - op: rearrange
    keys: "**.q_proj.weight"
    layout: "(h two d) i -> (h d two) i"
    sizes: {two: 2, heads: 4}
""",
        "recipe.yaml:3: rearrange: sizes: '(h two d) i -> (h d two) i' has no axis 'heads'; it has d, h, i, two",
    ),
    "not divisible": (
        """\
ckptfix: 1
vars: {n_heads: 3}
rules:
  - op: rearrange
    keys: "**.q_proj.weight"
    layout: "(h d) i -> h d i"
    sizes: {h: n_heads}
""",
        "recipe.yaml:4: rearrange: 'layers.0.q_proj.weight': (h d): 16 is not divisible by 3 "
        "(given h = 3; correct sizes or the layout)",
    ),
    "unknown variable": (
        """\
ckptfix: 1
vars: {stages: [0, 1]}
rules:
  - op: rename
    map:
      "layers.{i}.{p:**}": "stages.{stage[i]}.{p}"
""",
        "recipe.yaml:4: rename: 'stages.{stage[i]}.{p}' uses 'stage', which no pattern or variable defines "
        "(give --var stage=..., or declare it in vars; known here: i, p, stages)",
    ),
    "duplicate key": (
        """\
ckptfix: 1
rules:
  - op: drop
    keys: fc.weight
    keys: fc.bias
""",
        "recipe.yaml:5: drop: the key 'keys' stands twice, first on line 4 (keep one)",
    ),
    "alias": (
        """\
ckptfix: 1
rules:
  - op: drop
    keys: *.weight
""",
        "recipe.yaml:4: aliases are not allowed (write the value out; quote a text that starts with * or &)",
    ),
    "misspelt op": (
        """\
ckptfix: 1
rules:
  - {op: dorp, keys: "fc.*"}
""",
        "recipe.yaml:3: dorp: unknown op 'dorp' (did you mean 'drop'?)",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_says_where_what_and_what_would_mend_it(
    mistake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, message = MISTAKES[mistake]
    monkeypatch.chdir(tmp_path)
    Path("recipe.yaml").write_text(text)
    with pytest.raises(CkptfixError) as caught:
        make_plan(load_recipe("recipe.yaml"), manifest(HAVE), manifest({})).raise_for_errors()
    assert str(caught.value) == message
    assert caught.value.exit_code == 2
