"""Slices for training: drawn, with their context slices, and augmented."""
