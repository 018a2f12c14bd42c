"""Registered models: packages, versions, aliases, and the tries of the gate."""
