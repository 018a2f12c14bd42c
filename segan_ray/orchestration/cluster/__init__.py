"""The Ray cluster: joined or started, its capacity, and the checks of its nodes."""
