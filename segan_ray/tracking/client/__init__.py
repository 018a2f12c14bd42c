"""Connecting to MLflow, and what its databases and servers need."""
