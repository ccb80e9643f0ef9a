"""What one pickle may cost. Each limit is far above what a sound checkpoint needs."""

PICKLE_NBYTES = 64 << 20
"""Bytes of one pickle. Weights lie outside it; a hundred thousand tensors take about 20 MiB."""

BUDGET = 96 << 20
"""What the values of one file's pickles may take in memory, in bytes by a rough count: `COSTS` and `cost_of_call`."""

STORAGE_BUDGET = 6 << 10
"""The same, for each storage that the file holds besides: what a tensor, its key and its names come to."""

MARKS = 5_000
"""MARK opcodes open at once. CPython's pickler writes one a nesting level and stops near 1,000 levels."""

DEPTH = 1_000
"""Containers inside one another."""

NAME = 1_000
"""Characters of a module's or a class's name."""

INTEGER_NBYTES = 256
"""Bytes of an integer; longer ones take quadratic time to print."""

HELD = 4 << 10
"""Bytes of a longest argument that is read where the pickle may hold weights itself; a longer one stays in the file."""

LINE = 1 << 20
"""Bytes of an argument that ends at a newline (protocol 0)."""
