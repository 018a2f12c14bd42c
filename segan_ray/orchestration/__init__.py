"""Everything that runs on Ray: sweeps, trials, workers."""
