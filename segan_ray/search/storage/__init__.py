"""Studies in their database: opened, recorded, and held by one process at a time."""
