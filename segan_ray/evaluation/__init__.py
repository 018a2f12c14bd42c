"""Volume inference, BRATS metrics, the promotion gate, pictures and reports."""
