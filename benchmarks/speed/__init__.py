"""How long ckptfix takes, and how much memory, beside `cp` and other tools: `python -m benchmarks.speed`."""
