"""Bridges: one module per library that ntkbayes interoperates with. None imports another."""
