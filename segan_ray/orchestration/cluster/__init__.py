"""The Ray cluster: joined or started, its capacity, and whether it is fit."""
