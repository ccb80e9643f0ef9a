"""safetensors: safe_open, and a line for each tensor."""

import sys

from safetensors import safe_open

with safe_open(sys.argv[1], framework="np") as file:
    for key in file.keys():  # noqa: SIM118  no mapping
        tensor = file.get_slice(key)
        print(key, tensor.get_dtype(), tensor.get_shape())  # noqa: T201
