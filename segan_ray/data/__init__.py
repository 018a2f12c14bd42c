"""Cases, volumes, the store, splits, slices and the phantom."""
