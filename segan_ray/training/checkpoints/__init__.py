"""Checkpoints: one of them, and those of a trial in a folder or at a URL."""
