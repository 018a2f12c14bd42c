"""A case as one self-contained HTML page: its scans, its truth and a prediction, in a viewer."""
