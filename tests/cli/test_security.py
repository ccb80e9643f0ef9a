"""`inspect --security`: the names of a file that is refused, and of what a call in it would unpickle in turn."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy
import pytest
import torch

from tests.formats.making import RUN_COMMAND, mapping, name, pickle_of, tensor, text, zip_bytes

from .running import call

EVIL = pickle_of(mapping(a=text("x"), evil=RUN_COMMAND))
PROTOCOL_0 = b"cposix\nsystem\n(S'true'\ntR."
DATA = {"data/0": bytes(16)}


def rows(path: Path, capsys: pytest.CaptureFixture[str], status: int) -> dict[str, str]:
    """The names with their first places."""
    assert call("inspect", path, "--security", "--json") == status
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert [error["code"] for error in document["errors"]] == ([] if status == 0 else [_code(err, document)])
    assert len(err.splitlines()) == (status != 0)
    return {row["name"]: row["place"] for row in document["opaque"]}


def _code(err: str, document: dict[str, list[dict[str, str]]]) -> str:
    error = document["errors"][0]
    assert err.startswith("error: ") and error["message"][:40] in err
    return error["code"]


def load_from_bytes(data: bytes) -> bytes:
    """A call of it with bytes of protocol 3."""
    return name("torch.storage", "_load_from_bytes") + b"B" + len(data).to_bytes(4, "little") + data + b"\x85R"


def saved(value: object, *, new: bool = True) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=new)
    return buffer.getvalue()


class Evil:
    """What pickle writes as a call of eval."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return eval, ("1",)


@pytest.mark.parametrize(
    ("inner", "listed", "place"),
    {
        "a pickle": (EVIL, "posix.system", "w (bytes): evil"),
        "what torch saved before 1.6": (
            saved({"k": [Evil()]}, new=False),
            "builtins.eval",
            "w (bytes): pickle 4: k[0]",
        ),
        "what torch saves": (saved({"k": [Evil()]}), "builtins.eval", "w (bytes): archive/data.pkl: k[0]"),
        "bytes in bytes": (
            pickle_of(mapping(b=load_from_bytes(EVIL))),
            "posix.system",
            "w (bytes): b (bytes): evil",
        ),
        "bytes that stay in the file": (
            pickle_of(mapping(a=text("x" * 2000), evil=RUN_COMMAND)),
            "posix.system",
            "w (bytes): evil",
        ),
    }.values(),
)
@pytest.mark.parametrize("container", ["pickle", "zip"])
def test_what_lies_in_bytes_that_a_call_unpickles(
    container: str, inner: bytes, listed: str, place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = pickle_of(mapping(w=load_from_bytes(inner)))
    path = tmp_path / "x.pkl"
    path.write_bytes(data if container == "pickle" else zip_bytes(data))
    found = rows(path, capsys, 0)
    assert found == {"torch.storage._load_from_bytes": "w", listed: place}


def test_what_lies_in_bytes_that_protocol_2_spells_as_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Loads:
        def __reduce__(self) -> tuple[object, tuple[bytes]]:
            return pickle.loads, (pickle.dumps([Evil(), "ÿ" * 900], 4),)

    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps({"w": Loads()}, 2))
    assert rows(path, capsys, 0) == {"pickle.loads": "w", "builtins.eval": "w (bytes): [0]"}


def test_a_call_that_stands_as_a_storage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.pth"
    path.write_bytes(zip_bytes(pickle_of(mapping(w=tensor(RUN_COMMAND), v=tensor())), DATA))
    found = rows(path, capsys, 3)
    assert found["posix.system"] == "a/data.pkl: w[0]"
    assert call("inspect", path, "--security") == 3
    out, err = capsys.readouterr()
    assert "posix.system" in out and "a tensor is built of something other than a storage" in err


@pytest.mark.parametrize("status", [0, 3])
def test_the_first_protocols(status: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.pkl"
    path.write_bytes(PROTOCOL_0 if status == 0 else b"N0" + PROTOCOL_0)
    assert rows(path, capsys, status) == {"posix.system": ""}


@pytest.mark.parametrize("after", [EVIL, EVIL + b"and more", PROTOCOL_0])
def test_a_second_pickle(after: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle_of(mapping(n=name("os", "getcwd") + b")R")) + after)
    place = "pickle 2: " if after is PROTOCOL_0 else "pickle 2: evil"
    assert rows(path, capsys, 3) == {"os.getcwd": "n", "posix.system": place}
    path.write_bytes(zip_bytes(path.read_bytes()))
    assert rows(path, capsys, 3) == {"os.getcwd": "a/data.pkl: n", "posix.system": f"a/data.pkl: {place}"}


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_an_archive_without_data_pkl(compression: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("readme.txt", "cposix\nsystem\n(")
        archive.writestr("model.pkl", EVIL)
    assert rows(path, capsys, 3) == {"posix.system": "model.pkl: evil"}


def test_a_pickle_that_ends_early(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.pth"
    path.write_bytes(zip_bytes(EVIL[:-2] + text("next") + name("os", "abort")))
    assert rows(path, capsys, 3) == {"posix.system": "a/data.pkl: evil", "os.abort": "a/data.pkl: next"}


def test_arrays_of_objects_and_old_archives(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.npy"
    numpy.save(path, numpy.array({"k": Evil()}, dtype=object), allow_pickle=True)
    path.write_bytes(path.read_bytes() + b"!")
    assert list(rows(path, capsys, 3)) == ["builtins.eval"]
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo("pickle")
        info.size = len(EVIL)
        archive.addfile(info, io.BytesIO(EVIL))
    assert rows(path, capsys, 3) == {"posix.system": "pickle: evil"}


@pytest.mark.parametrize(
    "data", [b"cat\nand dog\n(c) a text\n", b"compare\nthis\n(that)\n", b"", b"GGUF\3\0\0\0", b"{}"]
)
def test_what_is_no_pickle_names_nothing(data: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.txt"
    path.write_bytes(data)
    assert rows(path, capsys, 3) == {}
    assert call("inspect", path, "--security") == 3
    assert capsys.readouterr().out.startswith("no name was found before the fault")


def test_what_is_too_much_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.pkl"
    many = b"](" + RUN_COMMAND + b"]" * 200_000 + b"e"
    path.write_bytes(pickle_of(mapping(w=load_from_bytes(pickle_of(many)))))
    assert call("inspect", path, "--security", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert {row["name"] for row in document["opaque"]} == {"torch.storage._load_from_bytes", "posix.system"}
    (note,) = document["notes"]
    assert note.startswith("not all that lies in w (bytes) was searched: a pickle makes more values")


def test_a_sound_storage_in_bytes_is_no_call(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps({"w": torch.arange(4.0)}))
    assert rows(path, capsys, 0) == {}
    path.write_bytes(pickle_of(mapping(w=tensor(), evil=RUN_COMMAND)))
    assert rows(path, capsys, 3) == {"posix.system": "evil"}
