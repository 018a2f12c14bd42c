"""Synthetic patients with tumours, written in every layout."""
