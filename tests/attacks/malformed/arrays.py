"""NumPy files, tar archives of the first releases of torch, and plain pickles that contradict themselves."""

from __future__ import annotations

import io
import pickle
import struct
import tarfile
from collections.abc import Callable

import numpy as np

from tests.formats.making import integer, mapping, name, pickle_of, text

from ..archives import Entry, archive, deflate, deflated
from ..case import Case

_DATA = struct.pack("<4f", 1, 2, 3, 4)
_HEADER = "{'descr': '<f4', 'fortran_order': False, 'shape': (4,), }"


def npy(
    header: str | bytes = _HEADER, data: bytes = _DATA, *, magic: bytes = b"\x93NUMPY\1\0", length: int | None = None
) -> bytes:
    """Write one array with a header of one's own."""
    raw = header.encode("latin-1") if isinstance(header, str) else header
    return magic + struct.pack("<H", len(raw) if length is None else length) + raw + data


def npz() -> bytes:
    """Write a sound archive."""
    return archive([Entry(b"w.npy", npy())])


def _npz(member: bytes | None = None, **fields: int) -> Callable[[], bytes]:
    """A sound array, and another of the given bytes or headers."""
    entry = Entry(b"v.npy", npy() if member is None else member, fields, fields)
    return lambda: archive([Entry(b"w.npy", npy()), entry])


_HEADERS = {
    "no magic number": npy(magic=b"\x93NUMPX\1\0"),
    "a version of the future": npy(magic=b"\x93NUMPY\4\0"),
    "a header longer than the file": npy(length=9_000),
    "a header over numpy's limit": npy(_HEADER + " " * 20_000),
    "a header that is cut": npy(length=30),
    "a header that is a call": npy("__import__('os').system('true')"),
    "a header with a call inside": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (exit(),), }"),
    "a header that is a list": npy("['<f4', False, (4,)]"),
    "a header of brackets": npy("(" * 9_000),
    "a header that is not text": npy(b"\xff" * 60),
    "a header without shape": npy("{'descr': '<f4', 'fortran_order': False}"),
    "a header with more": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (4,), 'x': 1}"),
    "a field twice": npy("{'descr': '<f4', 'descr': '<i4', 'fortran_order': False, 'shape': (4,)}"),
    "an order that is a number": npy("{'descr': '<f4', 'fortran_order': 0, 'shape': (4,)}"),
    "a negative shape": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-4,)}"),
    "a shape of real numbers": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (4.0,)}"),
    "a shape that is a number": npy("{'descr': '<f4', 'fortran_order': False, 'shape': 4}"),
    "a shape that overflows": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296)}"),
    "65 axes": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (" + "1, " * 65 + ")}"),
    "more elements than bytes": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (5,)}"),
    "fewer elements than bytes": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (3,)}"),
    "no elements": npy(data=b""),
    "objects that are no pickle": npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", b"no pickle"),
    "objects that refer to storages": npy(
        "{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", pickle_of(text("x") + b"Q")
    ),
}

_NOT_READ = {"no magic number", "more elements than bytes", "fewer elements than bytes", "no elements"}
"""Of a file by itself, one array has no key: its elements are not looked at."""

_NPZ = {
    **{f"{name} in an archive": _npz(data) for name, data in _HEADERS.items() if name != "no magic number"},
    "an array twice": lambda: archive([Entry(b"w.npy", npy()), Entry(b"w.npy", npy())]),
    "an array whose CRC is wrong": _npz(crc=7),
    "an array that is encrypted": _npz(flags=1),
    "a deflate bomb": lambda: archive([deflated(b"w.npy", npy(), deflate(bytes(64 << 20)))]),
    "an array that inflates to less": lambda: archive([deflated(b"w.npy", npy(), deflate(npy()[:-4]))]),
    "only objects": lambda: archive([Entry(b"w.npy", _HEADERS["objects that are no pickle"])]),
}


def tar(**members: bytes | None) -> Callable[[], bytes]:
    """The oldest archive of torch, with members replaced; None leaves one out."""
    sound = {"storages": _storages(), "tensors": _tensors(), "pickle": pickle_of(b"}" + text("w") + integer(2) + b"Qs")}

    def make() -> bytes:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
            for member, data in {**sound, **members}.items():
                if data is not None:
                    info = tarfile.TarInfo(member)
                    info.size = len(data)
                    archive.addfile(info, io.BytesIO(data))
        return buffer.getvalue()

    return make


def _storages(
    count: int = 1, numel: int = 4, kind: str = "FloatStorage", views: bytes = b"]", data: bytes = _DATA
) -> bytes:
    described = b"(" + integer(1) + text("cpu") + name("torch", kind) + b"t"
    return pickle_of(integer(count)) + pickle_of(described) + struct.pack("<q", numel) + data + pickle_of(views)


def _tensors(count: int = 1, root: int = 1, numbers: tuple[int, ...] = (4, 1, 0), rank: int = 1) -> bytes:
    described = b"(" + integer(2) + integer(root) + name("torch", "FloatTensor") + b"t"
    packed = struct.pack(f"<i4x{len(numbers)}q", rank, *numbers)
    return pickle_of(integer(count)) + pickle_of(described) + packed


def _patched(offset: int, value: bytes) -> Callable[[], bytes]:
    """Change a sound archive's first header, and leave its checksum."""

    def make() -> bytes:
        data = bytearray(tar()())
        data[offset : offset + len(value)] = value
        return bytes(data)

    return make


_TARS: dict[str, Callable[[], bytes]] = {
    "a count of a million storages": tar(storages=_storages(count=1_000_000)),
    "a negative count of storages": tar(storages=_storages(count=-1)),
    "no storages": tar(storages=pickle_of(integer(0)) + pickle_of(b"]")),
    "a storage longer than its member": tar(storages=_storages(numel=1 << 20)),
    "a storage of a negative size": tar(storages=_storages(numel=-1)),
    "a storage of an unknown class": tar(storages=_storages(kind="EvilStorage")),
    "a view that leaves its storage": tar(
        storages=_storages(views=b"](" + integer(3) + integer(1) + integer(2) + integer(4) + b"ta")
    ),
    "views that are no list": tar(storages=_storages(views=b"N")),
    "bytes after the storages": tar(storages=_storages() + b"x"),
    "a tensor of a storage that is not there": tar(tensors=_tensors(root=9)),
    "a tensor of 65 axes": tar(tensors=_tensors(rank=65, numbers=(1,) * 131)),
    "a tensor of a negative rank": tar(tensors=_tensors(rank=-1)),
    "a tensor that leaves its storage": tar(tensors=_tensors(numbers=(5, 1, 0))),
    "a tensor before its storage": tar(tensors=_tensors(numbers=(4, 1, -1))),
    "a tensor of a negative stride": tar(tensors=_tensors(numbers=(4, -1, 3))),
    "a tensor that is cut": tar(tensors=_tensors()[:-4]),
    "a count of more tensors": tar(tensors=_tensors(count=2)),
    "an object that is not there": tar(pickle=pickle_of(b"}" + text("w") + integer(7) + b"Qs")),
    "two pickles": tar(pickle=pickle_of(b"N") + pickle_of(b"N")),
    "an empty pickle": tar(pickle=b""),
    "a checksum that is wrong": _patched(148, b"0000000\0"),
    "a size that is wrong": _patched(124, b"77777777777\0"),
    "a size that is no number": _patched(124, b"zzzzzzzzzzz\0"),
    "a header that is cut": lambda: tar()()[:700],
    "no end": lambda: tar()()[: 512 * 6],
    "a member twice": lambda: tar()()[: 512 * 2] + tar()(),
}

_UNKNOWN_TARS: dict[str, Callable[[], bytes]] = {
    "no tensors": tar(tensors=None),
    "another file inside": tar(readme=b"hello"),
    "a member above the folder": tar(**{"../evil": b"x"}),
}

_ARRAY = pickle.dumps(np.arange(4, dtype=np.float32), 2)[2:-1]


def _plain(body: bytes) -> Callable[[], bytes]:
    return lambda: pickle_of(body)


_PICKLES: dict[str, Callable[[], bytes]] = {
    "cut": lambda: pickle_of(b"}" + text("w") + _ARRAY + b"s")[:60],
    "a second pickle after it": lambda: pickle_of(b"}" + text("w") + _ARRAY + b"s") * 2,
    "no tensor": _plain(mapping(epoch=integer(1))),
    "nothing but a command": _plain(name("os", "system") + text("true") + b"\x85R"),
    "a persistent id": _plain(b"}" + text("w") + text("0") + b"Qs"),
    "two million MARKs": _plain(b"(" * 2_000_000),
    "an array twice under one key": _plain(b"}(" + (text("w") + _ARRAY) * 2 + b"u"),
    "an array of fewer bytes than its shape": _plain(
        b"}" + text("w") + _ARRAY.replace(b"K\x04\x85", b"K\x05\x85", 1) + b"s"
    ),
    "a byte array of six gigabytes": lambda: b"\x80\x05}" + text("w") + b"\x96" + struct.pack("<Q", 6 * 10**9) + b"s.",
}

CASES = [
    *(
        Case(f"npy: {name}", "x.npy", lambda data=data: data, unknown=name in _NOT_READ)  # type: ignore[misc]
        for name, data in _HEADERS.items()
    ),
    *(Case(f"npz: {name}", "x.npz", make) for name, make in _NPZ.items()),
    *(Case(f"tar: {name}", "x.pt", make) for name, make in _TARS.items()),
    *(Case(f"tar: {name}", "x.pt", make, unknown=True) for name, make in _UNKNOWN_TARS.items()),
    *(Case(f"pickle: {name}", "x.pkl", make) for name, make in _PICKLES.items()),
]
