"""The lazy regime, measured: real networks trained next to their own linearisations (THEORY 1).

`certify` says whether the kernel view holds for one network; `ntkbayes.lazy.widths.LazyStudy`, and
`ntkbayes lazy` on the command line, compare regimes over widths.
"""

from ntkbayes.lazy.brier import Brier
from ntkbayes.lazy.certificate import Certificate, certify
from ntkbayes.lazy.trajectory import Trajectory
from ntkbayes.lazy.verdict import Finding, PowerLaw, Regime, Verdict, judge

__all__ = [
    "Brier",
    "Certificate",
    "Finding",
    "PowerLaw",
    "Regime",
    "Trajectory",
    "Verdict",
    "certify",
    "judge",
]
