"""The edges: one module for each library that ntkbayes meets. None imports another."""
