"""safetensors: safe_open, one tensor after the other, an edit, save_file."""

import sys

from edits import EDITS
from safetensors import safe_open
from safetensors.torch import save_file

edit, source, out = sys.argv[1:]
with safe_open(source, framework="pt") as file:
    tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  no mapping
    save_file(EDITS[edit](tensors), out, metadata={"format": "pt"})
