"""A step of a training pipeline: prepare a checkpoint once, prove it, and know the next time that it is done."""

from ckptfix.pipeline.prepare import Prepared, prepare
from ckptfix.pipeline.step import Step

__all__ = ["Prepared", "Step", "prepare"]
