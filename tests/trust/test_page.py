"""docs/trust.md is the template with numbers in it, and the numbers are as many as are promised."""

from __future__ import annotations

import re
from pathlib import Path

from ckptfix.formats import list_formats
from tests.trust.page import fill

PAGE = Path(__file__).parents[2] / "docs" / "trust.md"
COLUMNS = ("mutations", "read", "refused", "messages", "seconds", "megabytes")
NUMBER = r"([\d,]+(?:\.\d+)?)"

LEAST = {"malformed": 150, "malicious": 230, "mutations": 20_000, "output_flips": 2_000, "input_flips": 2_000}
LEAST |= {"kills": 100, "limited_sizes": 20, "full_sizes": 20}


def test_the_page_is_the_template_with_enough_in_it() -> None:
    rows = {known.name: {column: f"@{column} of {known.name}@" for column in COLUMNS} for known in list_formats()}
    names = re.findall(r"\$(\w+)", (Path(__file__).with_name("template.md")).read_text(encoding="utf-8"))
    text = fill({name: f"@{name}@" for name in names if name != "table"}, rows)
    marks = re.findall(r"@([\w ]+)@", text)
    pattern = NUMBER.join(re.escape(part) for part in re.split(r"@[\w ]+@", text))
    found = re.fullmatch(pattern, PAGE.read_text(encoding="utf-8"))
    assert found, "docs/trust.md is not what `make docs` writes"
    numbers = dict(zip(marks, (float(number.replace(",", "")) for number in found.groups()), strict=True))
    assert not {name: numbers[name] for name, least in LEAST.items() if numbers[name] < least}
    assert numbers["attack_seconds"] / numbers["attack_slowness"] < 2
    assert numbers["fuzz_seconds"] < 1
    assert max(numbers["attack_megabytes"], numbers["fuzz_megabytes"]) < 300
