"""Training: of the linearised network, where the trained predictor is explicit in the NTK."""
