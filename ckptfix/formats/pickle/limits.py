"""What one pickle may cost. Each limit is far above what a sound checkpoint needs."""

PICKLE_NBYTES = 64 << 20
"""Bytes of one pickle. Weights lie outside it; a hundred thousand tensors take about 20 MiB."""

BUDGET = 64 << 20
"""What the values of one file's pickles may take in memory, in bytes by a rough count: `COSTS` and `cost_of_call`."""

STORAGE_BUDGET = 6 << 10
"""The same, for each storage that the file holds besides: what a tensor, its key and its names come to."""

ARGUMENT_BUDGET = 16 << 10
"""The same, for each argument longer than HELD: what a tensor in it comes to, with the pickles of its own storage."""

MARKS = 5_000
"""MARK opcodes open at once. CPython's pickler writes one a nesting level and stops near 1,000 levels."""

DEPTH = 1_000
"""Containers inside one another."""

NAME = 1_000
"""Characters of a module's or a class's name."""

INTEGER_NBYTES = 256
"""Bytes of an integer; longer ones take quadratic time to print."""

HELD = 512
"""Bytes of the longest argument that is read where the pickle may hold weights itself; longer ones stay in the file."""

LINE = 1 << 20
"""Bytes of an argument that ends at a newline (protocol 0)."""
