"""transformers: from_pretrained, save_pretrained."""

import sys

from transformers import AutoModelForCausalLM

dtype, shard_size, source, out = sys.argv[1:]
model = AutoModelForCausalLM.from_pretrained(source, dtype=dtype)
model.save_pretrained(out, max_shard_size=shard_size)
