"""Results on disk: comparisons, law by law, and the run folders that hold them."""
