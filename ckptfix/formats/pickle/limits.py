"""What one pickle may cost. Each limit is far above what a sound checkpoint needs."""

PICKLE_NBYTES = 256 << 20
"""Bytes of one pickle. Weights lie outside it; a hundred thousand tensors take about 20 MiB."""

OPCODES = 20_000_000
"""Opcodes of one pickle: about 30 a tensor. They bound the values made, since none makes more than one."""

MARKS = 5_000
"""MARK opcodes open at once. CPython's pickler writes one a nesting level and stops near 1,000 levels."""

DEPTH = 1_000
"""Containers inside one another."""

RECORDS = 500_000
"""Names and objects of classes that are not data."""

NAME = 1_000
"""Characters of a module's or a class's name."""

INTEGER_NBYTES = 256
"""Bytes of an integer; longer ones take quadratic time to print."""

HELD = 16 << 10
"""Bytes of a longest argument that is read where the pickle may hold weights itself; a longer one stays in the file."""

LINE = 1 << 20
"""Bytes of an argument that ends at a newline (protocol 0)."""
