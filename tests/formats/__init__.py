"""Tests of `ckptfix.formats`."""
