"""A checkpoint, and all checkpoints of a trial in a folder or at a URL."""
