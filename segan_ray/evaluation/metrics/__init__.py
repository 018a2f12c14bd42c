"""BRATS metrics of label maps: regions, lesions, surfaces, and their intervals."""
