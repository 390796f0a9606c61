"""Scores of predictions and distances between laws, on plain NumPy arrays."""
