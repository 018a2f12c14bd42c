"""Trials on Ray Tune: the sweep, its trainable, and how trials begin and end."""
