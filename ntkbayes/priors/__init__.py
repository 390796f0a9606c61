"""The prior GP(mean, Θ/ridge), its paths, and its hyperparameters."""
