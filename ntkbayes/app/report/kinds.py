"""Which kind of law is behind predictions."""

from collections.abc import Callable

from ntkbayes.predictions import Predictions

_KINDS: dict[str, Callable[[Predictions], bool]] = {
    "tempered": lambda p: "temperature" in p.info,
    "NUTS": lambda p: p.sampling == "Markov chains",
    "random init": lambda p: p.sampling == "independent initialisations",
    "perturbed init": lambda p: p.sampling == "independent perturbed initialisations",
    "importance": lambda p: p.sampling == "importance resampling",
    "MAP": lambda p: p.sampling == "point",
    "sites": lambda p: "site_move" in p.info,
    "Laplace": lambda p: "log_evidence" in p.info,
    "pruned Laplace": lambda p: "excess_bound" in p.info,
    "Dirichlet": lambda p: "log_density" in p.info,
    "first order": lambda p: "exact" in p.info,
}


def kind(predictions: Predictions) -> str:
    """The kind of law behind predictions, whatever its name, as in report.html."""
    if predictions.logits is None:
        return "baseline"
    return next((name for name, holds in _KINDS.items() if holds(predictions)), "other")
