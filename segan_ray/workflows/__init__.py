"""Commands on finished sweeps and their models: promote, evaluate, predict, report."""
