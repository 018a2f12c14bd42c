"""The prepared store: made, described by its manifest, split, cached and opened."""
