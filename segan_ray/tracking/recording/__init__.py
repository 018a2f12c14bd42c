"""Recording sweeps: first into an outbox on this disk, then into MLflow's runs."""
