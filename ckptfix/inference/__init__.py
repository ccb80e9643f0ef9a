"""Infer the recipe that leads from a checkpoint to an architecture."""
