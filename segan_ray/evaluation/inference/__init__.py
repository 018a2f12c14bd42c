"""From volumes to label maps: a packaged model, its probability maps, and postprocessing."""
