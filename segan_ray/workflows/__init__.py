"""Commands over finished sweeps: promote, evaluate, predict, report."""
