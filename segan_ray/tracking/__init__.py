"""Everything that talks to MLflow: runs, the registry, and what is composed from them."""
