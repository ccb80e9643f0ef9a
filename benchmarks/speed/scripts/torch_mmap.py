"""The same with the file mapped into memory: torch.load(mmap=True), an edit, save_file."""

import sys

import torch
from edits import EDITS
from safetensors.torch import save_file

edit, source, out = sys.argv[1:]
save_file(EDITS[edit](torch.load(source, map_location="cpu", mmap=True)), out, metadata={"format": "pt"})
