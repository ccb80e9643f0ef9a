"""Arrays of numpy: the header's dict is changed word by word, and its length made to fit or not."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from random import Random

from tests.fuzz.mutate import raw
from tests.fuzz.mutate.numbers import number, text

_WORD = re.compile(rb"'[^']*'|\w+|\(|\)|,|:")

_PUT_IN = [
    *("'|O'", "'<f4'", "'>f8'", "'|b1'", "'<U4'", "'|V2'", "'<M8[s]'", "[('a', '<f4')]", "'descr'", "'shape'", "True"),
    *("None", "(", ")", "(2, 3)", "(-1,)", "1e400", "9" * 5000, "[" * 300, "{}", "lambda: 0", "'<f4'*3", "-1", "3L"),
]


def changer(inner: Callable[[bytes, Random, Sequence[bytes]], bytes]) -> Callable[..., bytes]:
    """Make the mutator. `inner` changes the pickle of an array of objects."""

    def change(data: bytes, rng: Random, others: Sequence[bytes]) -> bytes:
        width = 2 if data[6:7] == b"\1" else 4
        length = int.from_bytes(data[8 : 8 + width], "little")
        header, body = data[8 + width : 8 + width + length], data[8 + width + length :]
        if b"'|O'" in header and rng.random() < 0.7:
            return data[: 8 + width + length] + inner(body, rng, [other[other.find(b"\n") + 1 :] for other in others])
        version = data[6:8]
        match rng.randrange(6):
            case 0:
                version = bytes([rng.randrange(5), rng.randrange(2)])
            case 1:
                body = raw.change(body, rng, ())
            case _:
                header = _change_words(header, rng)
        length = number(rng) if rng.random() < 0.1 else len(header)
        width = 2 if version[:1] == b"\1" else 4
        return data[:6] + version + (length % (1 << (8 * width))).to_bytes(width, "little") + header + body

    return change


def _change_words(header: bytes, rng: Random) -> bytes:
    words = list(_WORD.finditer(header))
    if not words:
        return header
    word = rng.choice(words)
    put_in = rng.choice((rng.choice(_PUT_IN), str(number(rng)), repr(text(rng)), ""))
    return header[: word.start()] + put_in.encode("utf-8", "surrogatepass") + header[word.end() :]
