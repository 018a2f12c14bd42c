"""Patients scored and models compared: thresholds, the gate, and leakage."""
