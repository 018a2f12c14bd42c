"""Commands as Ray Jobs on a cluster: submitted, followed, stopped."""
