"""SegAN as a system: adversarial training on Ray, search with Optuna, records in MLflow."""

__version__ = "0.1.0"
