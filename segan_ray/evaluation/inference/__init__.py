"""From volumes to label maps: a packaged model, its slices, and what follows them."""
