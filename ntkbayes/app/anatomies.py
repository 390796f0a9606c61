"""The anatomy of a study's laws, from their draws at the training points."""

from collections.abc import Mapping

from ntkbayes.comparison import Comparison
from ntkbayes.datasets import Dataset
from ntkbayes.laws import Problem, Sampling
from ntkbayes.likelihood import Likelihood
from ntkbayes.linalg import OperatorGram
from ntkbayes.predictions import Predictions
from ntkbayes.priors.prior import NTKPrior
from ntkbayes.spectra import MOST_ROWS, Anatomy, Basis


def anatomy_of(
    comparison: Comparison, prior: NTKPrior, train: Dataset, likelihood: Likelihood
) -> Anatomy | None:
    """Of all laws with a spread; None without a ridge or a reference with a spread, and where the
    eigenvectors would take too long."""
    spread = {n: p for n, p in comparison.training.items() if _has_spread(p)}
    if float(prior.ridge) == 0 or comparison.reference not in spread or len(spread) < 2:
        return None
    if train.num_points > MOST_ROWS:
        return None
    problem = Problem.build(prior, train, likelihood)
    ntk = problem.gram.ntk
    if isinstance(ntk, OperatorGram) or (ntk.couples and problem.targets.size > MOST_ROWS):
        return None
    basis = Basis.of(problem)
    found = {name: basis.of_draws(p.centred_logits, problem) for name, p in spread.items()}
    return basis.anatomy(found, comparison.reference)


def recorded(settings: Mapping[str, object]) -> Anatomy | None:
    """That of a comparison's settings; None if they have none."""
    record = settings.get("anatomy")
    try:
        return Anatomy.from_plain(record) if isinstance(record, Mapping) else None
    except (KeyError, TypeError, ValueError):
        return None


def _has_spread(p: Predictions) -> bool:
    return p.logits is not None and p.kind.sampling is not Sampling.POINT and len(p.logits) > 20
