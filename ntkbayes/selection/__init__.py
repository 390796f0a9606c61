"""Choosing hyperparameters: the evidence, cross-validation and leave-one-out."""
