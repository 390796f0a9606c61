"""Results on disk: comparisons, law by law, and the run folders that hold them."""

from ntkbayes.storage.comparisons import load, load_so_far, save, summary_files
from ntkbayes.storage.fits import fits_in, keep_fit, load_fit
from ntkbayes.storage.fitted import load_law, save_law
from ntkbayes.storage.laws import LawFolder, LawRecord, configurations_in, has_ended, law_path
from ntkbayes.storage.provenance import circumstances, digest_of_data, random_switches, versions
from ntkbayes.storage.records import ComparisonRecord, read_record
from ntkbayes.storage.run_folder import Announce, RunFolder

__all__ = [
    "Announce",
    "ComparisonRecord",
    "LawFolder",
    "LawRecord",
    "RunFolder",
    "circumstances",
    "configurations_in",
    "digest_of_data",
    "fits_in",
    "has_ended",
    "keep_fit",
    "law_path",
    "load",
    "load_fit",
    "load_law",
    "load_so_far",
    "random_switches",
    "read_record",
    "save",
    "save_law",
    "summary_files",
    "versions",
]
