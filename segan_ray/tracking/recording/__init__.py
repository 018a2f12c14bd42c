"""Recording sweeps into MLflow: journal first, runs as soon as it answers."""
