"""safetensors, a shard after the other: load_file, an edit, save_file; then the index."""

import json
import sys
from pathlib import Path

from edits import EDITS
from safetensors.torch import load_file, save_file

edit, source, out = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
out.mkdir()
weight_map, total = {}, 0
for shard in sorted(source.glob("*.safetensors")):
    tensors = EDITS[edit](load_file(shard))
    save_file(tensors, out / shard.name, metadata={"format": "pt"})
    weight_map |= dict.fromkeys(tensors, shard.name)
    total += sum(tensor.nbytes for tensor in tensors.values())
index = {"metadata": {"total_size": total}, "weight_map": weight_map}
(out / "model.safetensors.index.json").write_text(json.dumps(index))
