"""Measure ckptfix on problems with known answers."""
