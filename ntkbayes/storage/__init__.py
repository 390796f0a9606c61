"""Results on disk: comparisons, law by law, and the run folders that hold them."""

from ntkbayes.storage.comparisons import load, save

__all__ = ["load", "save"]
