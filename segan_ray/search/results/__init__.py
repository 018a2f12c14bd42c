"""What a sweep came to: ranking, columns of settings and their importance."""
