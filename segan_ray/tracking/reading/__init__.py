"""Reading sweeps, trials and evaluations back out of MLflow."""
