"""Inference by behaviour: where both architectures can be built, both models run on one input.

What names and shapes leave ambiguous is asked in questions, one for each role in all blocks (`questions`), with the
links that each answer would make (`options`). They are tried in the target until it does what the source does
(`search`), which the outputs of corresponding modules lead to (`observe`).
"""

from __future__ import annotations

from ckptfix.inference.behaviour.decide import decide, suggest_by_behaviour

__all__ = ["decide", "suggest_by_behaviour"]
