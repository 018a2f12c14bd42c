"""Scoring patients and comparing models: the FLAIR reference, the gate, and leakage."""
