"""Adapt a checkpoint to the architecture you have, and prove that it loads."""
