"""The MLflow UI, for its owner alone."""
