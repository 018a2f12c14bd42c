"""What MLflow shows of runs: facts, notes, and the saved views of its UI."""
