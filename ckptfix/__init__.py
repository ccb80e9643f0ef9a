"""Adapt a checkpoint to the architecture you have, and prove that it loads.

    import ckptfix

    report = ckptfix.load_into(model, "checkpoint.pth", recipe="recipe.yaml")

The names are loaded when they are first used, so that `import ckptfix` costs nothing.
"""

from __future__ import annotations

from importlib import import_module

from ckptfix._version import __version__

TYPE_CHECKING = False  # which a type checker takes for true; `typing` itself would cost milliseconds
if TYPE_CHECKING:
    from ckptfix.api import adapt, check, finetune, invert, load_into, open, plan, suggest, target, verify  # noqa: A004
    from ckptfix.errors import CkptfixError
    from ckptfix.pipeline.prepare import prepare
    from ckptfix.proof.freeze import freeze
    from ckptfix.recipe import load_recipe

__all__ = [
    "CkptfixError",
    "__version__",
    "adapt",
    "check",
    "finetune",
    "freeze",
    "invert",
    "load_into",
    "load_recipe",
    "open",
    "plan",
    "prepare",
    "suggest",
    "target",
    "verify",
]

_HOMES = {
    "CkptfixError": "ckptfix.errors",
    "freeze": "ckptfix.proof.freeze",
    "load_recipe": "ckptfix.recipe",
    "prepare": "ckptfix.pipeline",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'ckptfix' has no attribute '{name}'")
    return getattr(import_module(_HOMES.get(name, "ckptfix.api")), name)


def __dir__() -> list[str]:
    return __all__
