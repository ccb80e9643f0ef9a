"""The report of a fine-tune as one HTML file that loads nothing: curves, policies, and what the check found.

Keys and names come from files that nobody vouches for: every text is escaped, and a character that does not print
(a bidirectional override, for one) is shown by its number.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from typing import Any

from ckptfix.report.plots import choose_colours, show_unprintable

# The documents are JSON; their fields are `Any` here.
Document = Mapping[str, Any]

_MOST_ROWS = 200
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def finetune_page(document: Document, *, check: Document | None, verify: Document | None, svg: str) -> str:
    """Write the page from the documents of `finetune`, `check` and `verify --json` and the curves."""
    data = document["data"]
    title = f"Fine-tune on {data['uri']}"
    style = files("ckptfix.report").joinpath("finetune.css").read_text(encoding="utf-8")
    sections = [
        _head(title, document),
        f'<section><h2>Curves</h2><div class="figure">{_inline(svg)}</div></section>',
        _policies(document),
        _check(check) if check else "",
        _verify(verify) if verify else "",
        _settings(document),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{_text(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(section for section in sections if section)
        + "\n</main>\n</body>\n</html>\n"
    )


def _text(value: object) -> str:
    return html.escape(show_unprintable(str(value)))


def _inline(svg: str) -> str:
    """Cut an SVG file down to what stands inside HTML: no prolog, no namespaces, size from the page."""
    start = svg.index("<svg")
    end = svg.index(">", start) + 1
    tag = re.sub(r'\s(?:xmlns(?::\w+)?|width|height)="[^"]*"', "", svg[start:end])
    label = 'role="img" aria-label="Training loss and test accuracy of every policy"'
    return f"{tag[:-1]} {label}>{svg[end:]}"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lay out cells of HTML; a head that starts with `#` is a column of numbers."""
    kinds = [' class="number"' if head.startswith("#") else "" for head in heads]
    top = "".join(f"<th{kind}>{_text(head.lstrip('#'))}</th>" for head, kind in zip(heads, kinds, strict=True))
    body = "\n".join(
        "<tr>" + "".join(f"<td{kind}>{cell}</td>" for cell, kind in zip(row, kinds, strict=True)) + "</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table>\n<thead><tr>{top}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>'


def _badge(good: bool | None, yes: str, no: str) -> str:
    if good is None:
        return '<span class="badge none">not checked</span>'
    return f'<span class="badge {"good" if good else "bad"}">{_text(yes if good else no)}</span>'


def _head(title: str, document: Document) -> str:
    data = document["data"]
    facts = (
        f"{len(data['classes'])} classes, {data['train']} training and {data['test']} test examples, "
        f"{document['epochs']} epochs, {_plural(len(document['seeds']), 'seed')}, on {document['device']}"
    )
    problems = "".join(f"<li>{_text(problem)}</li>" for problem in document["problems"])
    listed = f'<ul class="problems">{problems}</ul>' if problems else ""
    badge = _badge(document["ok"], "passed", "failed")
    return f"<header><h1>{_text(title)} {badge}</h1>\n<p>{_text(facts)}</p>{listed}</header>"


def _plural(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _percent(part: float) -> str:
    """Word a share of 1; what is not all of it never rounds to 100 %."""
    return "100 %" if part == 1 else f"{min(100 * part, 99.9):.1f} %"


def _policies(document: Document) -> str:
    heads = ("policy", "#accuracy", "#loss", "#trained parameters", "#seconds", "freeze proof", "BatchNorm")
    colours = choose_colours(document["policies"])
    rows = [_policy_row(name, colours[name], result) for name, result in document["policies"].items()]
    note = (
        "Accuracy on the test set after the last epoch, with the lowest and the highest seed; loss is the mean "
        f"training loss of the last epoch. Guessing gives {_percent(document['chance'])}. Freeze proof: digests of "
        "every frozen parameter and buffer, before and after."
    )
    if any(result["recalibrated"] for result in document["policies"].values()):
        note += (
            " Recalibrated: after so few steps the running statistics of a BatchNorm that trains describe no network "
            "that exists, so they are recomputed over the training set before each evaluation."
        )
    return f"<section><h2>Policies</h2>{_table(heads, rows)}<p class='note'>{_text(note)}</p></section>"


def _policy_row(name: str, colour: str, result: Document) -> list[str]:
    accuracy = _percent(result["accuracy"][-1]) if result["accuracy"] else "none"
    if result["accuracy"] and (bounds := result.get("accuracy_range")):
        accuracy += f"<br><small>{_percent(bounds[-1][0])} to {_percent(bounds[-1][1])}</small>"
    loss = result["last_epoch_loss"]
    share = result["trainable_params"] / result["total_params"]
    keys = result["frozen_keys"]
    proof = '<span class="quiet">nothing frozen</span>'
    if keys:
        bad = f"{len(result['drifted'])} of {keys} tensors changed"
        proof = _badge(result["frozen_unchanged"], f"{keys} tensors unchanged", bad)
    norms = [f"{result['held_in_eval']} held in eval mode"] if result["held_in_eval"] else []
    norms += [f"{result['recalibrated_modules']} recalibrated"] if result["recalibrated"] else []
    return [
        f'<span class="swatch" style="background:{colour}"></span><code>{_text(name)}</code>',
        accuracy,
        "not finite" if loss is None else f"{loss:.3g}",
        f"{result['trainable_params']:,}<br><small>{_percent(share)}</small>",
        f"{result['seconds']:.1f}<br><small>{result['train_seconds']:.1f} training</small>",
        proof,
        ", ".join(norms) or '<span class="quiet">none</span>',
    ]


def _check(check: Document) -> str:
    badge = _badge(check.get("compatible"), "compatible", "incompatible")
    coverage = check.get("coverage") or {}
    bars = "".join(
        f'<div class="bar"><span>{_text(name)}</span><div class="track"><div style="width:{100 * share:.2f}%"></div>'
        f"</div><b>{_percent(share)}</b></div>"
        for name, share in coverage.items()
    )
    names = ("loaded", "filled", "dropped", "missing", "unexpected", "mismatched")
    counts = "".join(f"<div><b>{len(check.get(name) or ()):,}</b> {name}</div>" for name in names)
    parts = [
        f"<section><h2>Check {badge}</h2>",
        f"<h3>Coverage of the target by loaded weights</h3>{bars}" if bars else "",
        f'<div class="counts">{counts}</div>',
        _rows("Filled, not loaded", ("key",), [{"key": key} for key in check.get("filled") or ()]),
        _rows("Dropped by a rule", ("key",), [{"key": key} for key in check.get("dropped") or ()]),
        _rows("Mismatched", ("key", "have", "want"), check.get("mismatched")),
        _rows("Missing", ("key", "shape", "nearest"), check.get("missing")),
        _rows("Unexpected", ("key", "from", "shape", "nearest"), check.get("unexpected")),
        _rows("Other dtype, cast on loading", ("key", "have", "want"), check.get("dtypes")),
        _rows("Errors", ("code", "where", "message", "hint"), check.get("errors")),
        "</section>",
    ]
    return "\n".join(part for part in parts if part)


def _rows(title: str, fields: Sequence[str], entries: Sequence[Document] | None) -> str:
    """List the entries of one field of the check, the first of them where they are many."""
    if not entries:
        return ""
    shown = [[_cell(field, entry) for field in fields] for entry in entries[:_MOST_ROWS]]
    more = f"<p class='note'>and {len(entries) - _MOST_ROWS:,} more</p>" if len(entries) > _MOST_ROWS else ""
    return f"<h3>{_text(title)}</h3>{_table(fields, shown)}{more}"


def _cell(field: str, entry: Document) -> str:
    value = entry.get(field)
    if field == "shape" and value is not None:
        return f"<code>{_spec(entry)}</code>"
    if value is None or value == []:
        return '<span class="quiet">none</span>'
    if isinstance(value, Mapping):
        return f"<code>{_spec(value)}</code>"
    if isinstance(value, list):
        return "<br>".join(f"<code>{_text(one)}</code>" for one in value)
    return f"<code>{_text(value)}</code>"


def _spec(entry: Document) -> str:
    shape = ", ".join(str(extent) for extent in entry.get("shape") or ())
    return _text(f"{entry.get('dtype', '')} [{shape}]".strip())


def _verify(verify: Document) -> str:
    rows = [
        ("strict load", _badge(verify.get("strict_load"), "loads", "does not load")),
        ("values", _badge(verify.get("values"), "as planned", "differ")),
        ("forward pass", _badge(verify.get("forward"), "finite", "failed")),
    ]
    if parity := verify.get("parity"):
        rows.append(("parity, largest difference", f"<code>{_text(parity.get('max_abs'))}</code>"))
    return f"<section><h2>Verify {_badge(verify.get('ok'), 'ok', 'failed')}</h2>{_facts(rows)}</section>"


def _settings(document: Document) -> str:
    data = document["data"]
    rates = ", ".join(f"{name} {rate:g}" for name, rate in document["learning_rates"].items())
    rows = [
        ("device", _text(f"{document['device']} ({document['device_name']}), {document['precision']}")),
        ("seeds", _text(", ".join(map(str, document["seeds"])))),
        ("epochs, batch size", _text(f"{document['epochs']}, {document['batch_size']}")),
        ("learning rates (AdamW, warm-up, cosine)", _text(rates)),
        ("classes", _text(f"{', '.join(data['classes'][:20])}: {len(data['classes'])} of {data['available_classes']}")),
    ]
    return f"<section><h2>Settings</h2>{_facts(rows)}</section>"


def _facts(rows: Iterable[tuple[str, str]]) -> str:
    return "<dl>" + "".join(f"<dt>{_text(name)}</dt><dd>{value}</dd>" for name, value in rows) + "</dl>"
