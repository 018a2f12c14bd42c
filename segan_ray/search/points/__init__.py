"""The points of a sweep that no sampler draws: first ones, believed ones, repeats, twins."""
