"""`ckptfix inspect`: what a checkpoint holds, or what a target wants."""

from __future__ import annotations

import json
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ckptfix.cli import options
from ckptfix.cli.console import echo_lines, print_json, show_error, show_note
from ckptfix.counts import count
from ckptfix.errors import InvalidCall

if TYPE_CHECKING:
    from ckptfix.formats import Checkpoint
    from ckptfix.tensors import Manifest


@click.command("inspect")
@click.argument("source")
@click.option("--tree", is_flag=True, help="Group the tensors by module.")
@click.option("--filter", "glob", help="Show only the keys that match, as 'features.0.*'.")
@click.option("--stats", is_flag=True, help="Read the tensors: least, largest, mean, deviation, NaN and infinities.")
@click.option("--security", is_flag=True, help="List what unpickling the file would have run.")
@click.option("--shapes", is_flag=True, help="Print the shapes as a lockfile that `shapes:` reads.")
@options.json_output
@options.as_json
def command(
    source: str,
    tree: bool,
    glob: str | None,
    stats: bool,
    security: bool,
    shapes: bool,
    output: Path | None,
    as_json: bool,
) -> int:
    """Show the tensors of a checkpoint, or the modules of a target.

    SOURCE is a file (FILE#PATH for one of several state dicts) or a target such as timm:resnet18. Headers only are
    read, unless --stats is given; nothing of the file is run.
    """
    from ckptfix.formats import open_checkpoint, split_select, wrapper_prefixes
    from ckptfix.report import text
    from ckptfix.targets import is_target, resolve

    if output and not shapes:
        raise InvalidCall("-o belongs to --shapes", hint="add --shapes")
    if sum((stats, security, shapes)) > 1:
        raise InvalidCall("--stats, --security and --shapes are three answers", hint="ask one at a time")
    if (security or shapes) and glob is not None:
        raise InvalidCall(f"--filter does not apply to {'--security' if security else '--shapes'}")
    if is_target(source):
        if stats or security:
            raise InvalidCall("a target has no values and no pickle", where=source, hint="--stats, --security: files")
        target = resolve(source)
        for note in target.notes:
            show_note(note)
        keys = _keys(target.manifest, glob)
        if shapes:
            _write_lockfile(target.manifest, output)
        elif as_json:
            print_json(target.manifest.only(keys).to_json() | {"target": source})
        else:
            echo_lines(text.show_modules(target.manifest, keys))
        return 0
    if security:
        return _show_security(split_select(source)[0], as_json=as_json)
    checkpoint = open_checkpoint(source)
    for note in checkpoint.remarks:
        show_note(note)
    keys = _keys(checkpoint.manifest, glob)
    if shapes:
        _write_lockfile(checkpoint.manifest, output)
    elif stats:
        _show_stats(checkpoint, keys, as_json=as_json)
    elif as_json:
        print_json(_document(checkpoint, keys))
    elif tree:
        echo_lines(text.show_modules(checkpoint.manifest, keys))
    else:
        echo_lines(text.show_checkpoint(checkpoint, keys, wrapper_prefixes(checkpoint.tensors)))
    return 0


def _show_security(path: Path, *, as_json: bool) -> int:
    from ckptfix.formats.audit import audit_file
    from ckptfix.report.security import security_document, show_security

    audit = audit_file(path)
    if as_json:
        print_json(security_document(audit))
    else:
        echo_lines(show_security(audit))
    if audit.refusal is None:
        return 0
    show_error(audit.refusal)
    return audit.refusal.exit_code


def _keys(manifest: Manifest, glob: str | None) -> list[str]:
    return [key for key in manifest if glob is None or fnmatchcase(key, glob)]


def _write_lockfile(manifest: Manifest, output: Path | None) -> None:
    if output is None:
        print_json(manifest.to_json())
        return
    from ckptfix.execute.atomic import write_whole

    write_whole(output, f"{json.dumps(manifest.to_json(), indent=1)}\n".encode(), replace=True)


def _document(checkpoint: Checkpoint, keys: list[str]) -> dict[str, Any]:
    from ckptfix.formats import wrapper_prefixes
    from ckptfix.report.security import list_names

    manifest = checkpoint.manifest
    return {
        "schema_version": 1,
        "path": str(checkpoint.path),
        "format": checkpoint.format,
        "select": checkpoint.select,
        "tensors": {key: manifest[key].to_json() for key in keys},
        "totals": {"tensors": len(manifest), "elements": manifest.numel, "bytes": manifest.nbytes},
        "candidates": [row._asdict() for row in checkpoint.candidates],
        "optimizers": list(checkpoint.optimizers),
        "ignored": list(checkpoint.ignored),
        "tied": [list(group) for group in checkpoint.aliases],
        "wrappers": list(wrapper_prefixes(checkpoint.tensors)),
        "metadata": dict(checkpoint.metadata),
        "notes": list(checkpoint.notes),
        "opaque": [one.to_json() for one in list_names(checkpoint.opaque)],
    }


def _show_stats(checkpoint: Checkpoint, keys: list[str], *, as_json: bool) -> None:
    from ckptfix.execute.stats import Stats, measure
    from ckptfix.report import text

    measured = dict(measure(checkpoint, keys))
    unmeasured = {key: str(checkpoint.manifest[key].dtype) for key, stats in measured.items() if stats is None}
    if unmeasured:
        dtypes = " and ".join(dict.fromkeys(unmeasured.values()))
        show_note(f"no statistics of {dtypes}, whose elements are less than a byte: {count(len(unmeasured), 'tensor')}")
    if as_json:
        none = dict.fromkeys(Stats.__struct_fields__)
        rows = {
            key: checkpoint.manifest[key].to_json() | (stats.to_json() if stats else none)
            for key, stats in measured.items()
        }
        print_json({"schema_version": 1, "tensors": rows})
    else:
        echo_lines(text.show_stats(checkpoint.manifest, measured))
