"""Labelled examples for a short fine-tune: one source a file, each with `load(body, wish) -> Data`."""
