"""Results on disk: comparisons, law by law, and the run folders that hold them."""

from ntkbayes.storage.comparisons import load, save, summary_files
from ntkbayes.storage.fitted import load_law, save_law
from ntkbayes.storage.laws import LawFolder, LawRecord, law_path
from ntkbayes.storage.provenance import circumstances, digest_of_data, random_switches, versions
from ntkbayes.storage.run_folder import Announce, RunFolder

__all__ = [
    "Announce",
    "LawFolder",
    "LawRecord",
    "RunFolder",
    "circumstances",
    "digest_of_data",
    "law_path",
    "load",
    "load_law",
    "random_switches",
    "save",
    "save_law",
    "summary_files",
    "versions",
]
