"""The short fine-tune: policies, the training loop, BatchNorm recalibration, and what is reported."""
