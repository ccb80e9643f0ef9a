"""What of an archive is no tensor's must be as ckptfix wrote it."""

from __future__ import annotations

from pathlib import Path

import torch
from msgspec.structs import replace
from safetensors.torch import save_file

from ckptfix import adapt
from ckptfix.formats import open_checkpoint
from ckptfix.proof.archive import check_archive


def test_a_tensor_of_a_distributed_file_that_is_said_to_lie_elsewhere(tmp_path: Path) -> None:
    save_file({"a": torch.ones(300), "b": torch.zeros(300)}, tmp_path / "x")
    adapt(tmp_path / "x", tmp_path / "x", f"{tmp_path}/out.dcp")
    written = open_checkpoint(tmp_path / "out.dcp" / "__0_0.distcp", select=".")
    assert check_archive(written).passed
    for key in written.tensors:
        for step in (-64, 64, 1 << 40):
            ref = written.tensors[key]
            moved = replace(ref, storage=replace(ref.storage, offset=ref.storage.offset + step))
            found = check_archive(replace(written, tensors={**written.tensors, key: moved}))
            assert found.passed is False
            assert found.problems == (f"1 tensor not where the layout puts them: {key}",)
