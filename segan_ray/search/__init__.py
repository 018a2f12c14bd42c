"""Search spaces, samplers, and the ranking of trials."""
