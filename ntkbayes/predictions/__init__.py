"""Predictions: laws pushed through the likelihood, on plain NumPy arrays."""
