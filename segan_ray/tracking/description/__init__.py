"""What runs say of themselves: facts, notes, and the views of the MLflow UI."""
