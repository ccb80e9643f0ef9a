"""safetensors: load_file, an edit, save_file."""

import sys

from edits import EDITS
from safetensors.torch import load_file, save_file

edit, source, out = sys.argv[1:]
save_file(EDITS[edit](load_file(source)), out, metadata={"format": "pt"})
