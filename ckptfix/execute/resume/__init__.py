"""What a training resumes from beside its weights: the optimizer's state, an average of the weights, plain counters.

The rules that made a parameter are replayed on its moments, where they only move numbers; the output keeps the
containers of the source, so that a training script finds each part where it was.
"""

from ckptfix.execute.resume.carry import OPTIMIZER, Carried, Companions, carry

__all__ = ["OPTIMIZER", "Carried", "Companions", "carry"]
