"""Numbers at which counts, sizes and offsets go wrong, and texts at which names do."""

from __future__ import annotations

from random import Random

_POWERS = [1 << bits for bits in (7, 8, 15, 16, 24, 31, 32, 33, 40, 53, 62, 63, 64, 100)]

EDGES = [0, 1, 2, 3, 4, 5, 8, 12, 16, 64, 65, 100, 255, 1000, *(n + d for n in _POWERS for d in (-1, 0, 1)), 10**12]

TEXTS = [
    *(
        "",
        ".",
        "..",
        "/",
        "../x",
        "/etc/passwd",
        "a" * 300,
        "a" * 5000,
        "\0",
        "x\0y",
        "\n",
        "\x1b[2J",
        "\u202e",
        "\ud800",
    ),
    *(
        "0",
        "-1",
        "1e400",
        "state_dict",
        "model",
        "storage",
        "cpu",
        "cuda:0",
        "data.pkl",
        "data/0",
        ".metadata",
        "version",
    ),
    *(
        "F32",
        "BF16",
        "F8_E4M3",
        "F4",
        "I64",
        "FloatStorage",
        "BFloat16Storage",
        "__metadata__",
        "ckptfix",
        "\U0001f600",
    ),
]


def number(rng: Random) -> int:
    """Draw a number that is an edge, its negative, or small."""
    kind = rng.random()
    if kind < 0.6:
        return rng.choice(EDGES)
    return -rng.choice(EDGES) if kind < 0.75 else rng.randrange(40)


def near(rng: Random, value: int) -> int:
    """Draw a number near another one, or any."""
    return value + rng.choice((-8, -4, -2, -1, 1, 2, 4, 8, value)) if rng.random() < 0.4 else number(rng)


def text(rng: Random) -> str:
    """Draw a text that is odd as a key, a name or a path."""
    return rng.choice(TEXTS)
