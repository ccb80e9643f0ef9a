"""Plain text for people: tables of what is there, what fits, what was proved."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from ckptfix.counts import count

if TYPE_CHECKING:
    from ckptfix.execute.resume import Companions
    from ckptfix.execute.stats import Stats
    from ckptfix.execute.work import Work
    from ckptfix.formats import Checkpoint
    from ckptfix.inference.suggestion import Suggestion
    from ckptfix.planning import Plan, Report
    from ckptfix.tensors import Manifest, Shape, TensorSpec

_WIDEST = 60
_MOST_ROWS = 40
_PROOFS = (("strict_load", "strict load"), ("values", "values"), ("forward", "forward pass"))


def table(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Align columns; the last one is left as it is."""
    rows = [tuple(row) for row in rows]
    widths = [min(max(map(len, column)), _WIDEST) for column in zip(*rows, strict=True)]
    layout = "  ".join(f"{{:{width}}}" for width in widths)
    for row in rows:
        yield layout.format(*row).rstrip()


def size(nbytes: int) -> str:
    """Write a number of bytes in decimal units."""
    amount = float(nbytes)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def show_checkpoint(checkpoint: Checkpoint, keys: Sequence[str], wrappers: tuple[str, ...]) -> Iterator[str]:
    """List the tensors of a checkpoint, and what is worth knowing of the file."""
    manifest = checkpoint.manifest
    specs = manifest.tensors
    yield from table((key, *_columns(specs[key])) for key in keys)
    yield ""
    chosen = f", state dict '{checkpoint.select}'" if checkpoint.select else ""
    yield f"{checkpoint.path.name}: {checkpoint.format}{chosen}"
    yield f"{count(len(manifest), 'tensor')}, {count(manifest.numel, 'element')}, {size(manifest.nbytes)}"
    others = [row for row in checkpoint.candidates if row.path != checkpoint.select]
    if others:
        listed = (f"#{row.path} ({count(row.tensors, 'tensor')})" for row in others)
        yield f"other state dicts: {', '.join(listed)}"
    if checkpoint.optimizers:
        yield f"optimizers: {', '.join(checkpoint.optimizers)}"
    if checkpoint.aliases:
        yield f"tied: {'; '.join(' = '.join(group) for group in checkpoint.aliases)}"
    if checkpoint.ignored:
        yield f"not tensors: {', '.join(checkpoint.ignored[:8])}{', ...' if len(checkpoint.ignored) > 8 else ''}"
    if wrappers:
        yield f"every key has the prefix '{''.join(wrappers)}' (in a recipe: source: {{strip: {list(wrappers)}}})"
    if checkpoint.opaque:
        values = count(len(checkpoint.opaque), "value")
        yield f"{values} that unpickling would have made by calling code (--security lists them)"


@lru_cache(maxsize=1 << 12)
def _columns(spec: TensorSpec) -> tuple[str, ...]:
    return str(spec.dtype), str([*spec.shape]), f"{spec.numel:,}"


def show_stats(manifest: Manifest, measured: Mapping[str, Stats | None]) -> Iterator[str]:
    """Show what the values of each tensor come to; dashes where they were not measured."""
    rows: list[tuple[str, ...]] = [
        ("key", "tensor", "least", "largest", "mean", "deviation", "zeros", "NaN", "infinite")
    ]
    for key, stats in measured.items():
        if stats is None:
            rows.append((key, str(manifest[key]), *"-------"))
            continue
        numbers = (stats.least, stats.largest, stats.mean, stats.deviation)
        shown = ("-" if number is None else f"{number:.4g}" for number in numbers)
        rows.append((key, str(manifest[key]), *shown, str(stats.zeros), str(stats.nan), str(stats.infinite)))
    yield from table(rows)


def show_modules(manifest: Manifest, wanted: Sequence[str]) -> Iterator[str]:
    """Show a module tree: path, class, parameters, and the tensors of each module's own."""
    own: dict[str, list[str]] = {}
    for key in wanted:
        own.setdefault(key.rpartition(".")[0], []).append(key)
    totals: dict[str, int] = {}
    for key in wanted:
        if manifest.kinds.get(key, "param") == "param":
            for path in _ancestors(key):
                totals[path] = totals.get(path, 0) + manifest[key].numel
    modules = manifest.modules or {path: "" for key in wanted for path in reversed(_ancestors(key))}
    shown = [path for path in modules if path in totals or path in own or len(wanted) == len(manifest)]
    widest = max((len(f"{total:,}") for total in totals.values()), default=0)
    rows = [
        (
            path or "(root)",
            (f"{totals[path]:,}" if path in totals else "").rjust(widest),
            "  ".join(f"{key.rpartition('.')[2]} {list(manifest[key].shape)}" for key in own.get(path, [])),
            modules[path],
        )
        for path in shown
    ]
    yield from table(rows) if rows else ()
    yield ""
    buffers = sum(manifest[key].numel for key in wanted if manifest.kinds.get(key) == "buffer")
    parameters = sum(manifest[key].numel for key in wanted) - buffers
    yield f"{count(len(wanted), 'tensor')}, {count(parameters, 'parameter')}" + (
        f", {buffers:,} in buffers" if buffers else ""
    )
    layers = [path for path in own if path in totals]
    if layers:
        yield f"last layer with parameters: {layers[-1] or '(root)'}"
    for group in manifest.tied:
        yield f"tied: {' = '.join(group)}"


def _ancestors(key: str) -> list[str]:
    """Give the module paths above a key, innermost first, the root last."""
    paths: list[str] = []
    while key:
        key = key.rpartition(".")[0]
        paths.append(key)
    return paths


def show_suggestion(suggestion: Suggestion) -> Iterator[str]:
    """Show what a suggested recipe leaves open, then the account in one line."""
    for group in suggestion.open[:_MOST_ROWS]:
        keys = [row.text for row in group.rows]
        yield f"{group.reason}: {', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''} ({group.count})"
    counts = {
        "resolved": len(suggestion.resolved),
        "filled": len(suggestion.filled),
        "ambiguous": len(suggestion.ambiguous),
        "unresolved": len(suggestion.unresolved),
    }
    new = suggestion.share_new
    share = "" if new is None else f" ({'less than 1%' if new < 0.01 else f'{new:.0%}'} of the elements)"
    told = (f"{number} {name}{share * (name == 'filled')}" for name, number in counts.items() if number)
    yield f"{count(suggestion.rules, 'rule')}; {', '.join(told)}"


def show_companions(companions: Companions) -> Iterator[str]:
    """Show what went along with the weights, and what did not."""
    for carried in companions.carried:
        total = len(carried.kept) + len(carried.reset)
        yield f"{carried.path}: the state of {len(carried.kept)} of {total} parameters goes along"
        reasons: dict[str, list[str]] = {}
        for key, reason in carried.reset.items():
            reasons.setdefault(reason, []).append(key)
        for reason, keys in reasons.items():
            yield f"  starts anew, {reason}: {', '.join(keys[:4])}{', ...' if len(keys) > 4 else ''} ({len(keys)})"
    if companions.left_out:
        yield f"left out: {', '.join(companions.left_out)}"


def show_report(report: Report) -> Iterator[str]:
    """Show what does not fit, then the account in one line."""
    groups = [
        [("mismatched", row.key, f"have {row.have}", f"want {row.want}") for row in report.mismatched],
        [("missing", row.key, f"want {row.want}", row.hint or _nearest(row.nearest)) for row in report.missing],
        [("unexpected", row.key, f"have {row.have}", _nearest(row.nearest)) for row in report.unexpected],
    ]
    rows = [row for group in groups for row in group[:_MOST_ROWS]]
    yield from table(rows) if rows else ()
    for group in groups:
        if len(group) > _MOST_ROWS:
            yield f"... and {len(group) - _MOST_ROWS} more {group[0][0]} (--json lists them all)"
    casts = Counter((row.have.dtype, row.want.dtype) for row in report.dtypes)
    for (have, want), number in casts.items():
        one = number == 1
        are, theirs, them = ("is", "is", "it") if one else ("are", "are", "them")
        yield f"{count(number, 'tensor')} {are} {have}, the target's {theirs} {want}: loading casts {them}"
    yield f"{report}; coverage {_percent(report.tensors)} of the keys, {_percent(report.params)} of the elements"
    if report.wrappers and report.missing:
        prefixes = ", ".join(f'"{prefix}"' for prefix in report.wrappers)
        yield f"every source key has a wrapper's prefix: source: {{strip: [{prefixes}]}}"
    pairs = report.mismatched
    if pairs and not (report.missing or report.unexpected):
        yield 'to start them anew: {op: drop, keys: "**", when: mismatched}, then {op: fill, keys: ..., value: target}'
        if any(
            len(row.have.shape) == len(row.want.shape) and row.have.shape[1:] != row.want.shape[1:] for row in pairs
        ):
            yield "to keep what they learned, where that is a grid, a vocabulary or the like: {op: resize, ...}"


def _may_resize(have: Shape, want: Shape) -> bool:
    """Tell whether more differs than the number of rows, as it does for a head of another class count."""
    return len(have) == len(want) and have[1:] != want[1:]


def _percent(share: float) -> str:
    """Write a share so that only all of it is 100%."""
    return f"{share:.1%}" if share == 1 else f"{min(share, 0.999):.1%}"


def _nearest(keys: tuple[str, ...]) -> str:
    return f"nearest: {', '.join(keys[:2])}" if keys else ""


def show_plan(plan: Plan) -> Iterator[str]:
    """Show, per target key, from what and by which line it is made, then the account."""
    origins = ["", *map(str, plan.recipe.origins)]
    rows = [(key, str(row.expr.spec), f"<- {row.expr}", origins[row.rule or 0]) for key, row in plan.outputs.items()]
    yield from table(rows) if rows else ()
    for step in plan.steps:
        yield f"{step.origin}: {count(step.edit.selected, 'key')}"
    yield from show_report(plan.report())


def show_work(work: Work) -> str:
    """Say how many bytes of the output come about in which way."""
    ways = {"copied as they lie": work.copied, "gathered": work.gathered, "cast": work.cast, "computed": work.computed}
    return f"bytes to write: {', '.join(f'{size(n)} {way}' for way, n in ways.items() if n) or 'none'}"


def show_proofs(document: Mapping[str, object]) -> Iterator[str]:
    """Show the document of `verify --json`."""
    words = {True: "yes", False: "NO", None: "not tried"}
    for name, title in _PROOFS:
        yield f"{title:14}{words[document[name]]}"  # type: ignore[index]  # the three are bool or None
    parity = document["parity"]
    if isinstance(parity, dict):
        apart = parity["max_abs"]
        yield f"{'parity':14}{'not comparable' if apart is None else f'max abs difference {apart:.3g}'}"
    for title, name in (("at their initial value", "at_initialisation"), ("note", "notes"), ("FAILED", "problems")):
        lines = document[name]
        assert isinstance(lines, list)
        if name == "at_initialisation" and lines:
            yield f"{title}: {', '.join(lines[:6])}{', ...' if len(lines) > 6 else ''}"
        elif name != "at_initialisation":
            yield from (f"{title}: {line}" for line in lines)
    untried = document["untried"]
    assert isinstance(untried, list)
    if document["ok"] and untried:
        tried = [title for _, title in _PROOFS if title not in untried]
        yield f"nothing failed: verified {' and '.join(tried)}; not verified, since not tried: {' and '.join(untried)}"
    else:
        yield "verified" if document["ok"] else "not verified"


def show_finetune(document: Mapping[str, object]) -> Iterator[str]:
    """Show the document of `finetune --json`: one row a policy."""
    policies = document["policies"]
    assert isinstance(policies, dict)
    rows = [("policy", "accuracy", "loss", "trainable", "seconds", "frozen")]
    for name, result in policies.items():
        accuracy, loss = result["accuracy"][-1:], result["last_epoch_loss"]
        rows.append(
            (
                name,
                f"{accuracy[0]:.3f}" if accuracy and accuracy[0] is not None else "-",
                f"{loss:.4g}" if loss is not None else "not finite",
                f"{result['trainable_params']:,}",
                f"{result['seconds']:.1f}",
                _frozen_proof(result),
            )
        )
    yield from table(rows)
    recalibrated = [name for name, result in policies.items() if result["recalibrated"]]
    if recalibrated:
        yield f"BatchNorm statistics recomputed before each evaluation: {', '.join(recalibrated)}"
    problems = document["problems"]
    assert isinstance(problems, list)
    yield from (f"FAILED: {problem}" for problem in problems)


def _frozen_proof(result: Mapping[str, object]) -> str:
    if not result["frozen_keys"]:
        return "none"
    return f"{result['frozen_keys']} unchanged" if result["frozen_unchanged"] else "CHANGED"
