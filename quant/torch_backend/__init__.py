"""The `torch` backend: runs a Hugging Face checkpoint itself, unquantized or through bitsandbytes.

Everything above the two `Session`s (prompts, pixels, batches, search) is the runtime's and stays the same.
The runtime finds this package by the entry point group `qvl_local.backends` and never imports it by name.
"""
