"""One trial on Ray Train: its worker group, its workers, and how they report."""
