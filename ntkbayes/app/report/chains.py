"""Whether Markov chains can be trusted, in words."""

import numpy as np

from ntkbayes.laws.chains.mixing import ESS_PER_CHAIN, GOOD_RHAT, WORST_RHAT, why_unknown
from ntkbayes.predictions import Predictions

MIXING = ("max_rhat", "min_bulk_ess", "min_tail_ess")


def is_mixing_unknown(predictions: Predictions) -> bool:
    """Whether a diagnostic is undefined: any R-hat is above √½, any effective sample size above 0."""
    bounds = zip(MIXING, (0.5**0.5, 0.0, 0.0), strict=True)
    values = [
        (predictions.info[field], least) for field, least in bounds if field in predictions.info
    ]
    return not all(np.isfinite(value) and value > least for value, least in values)


def chain_trouble(predictions: Predictions) -> list[str]:
    """What is wrong with the Markov chains, in words; empty if nothing is."""
    info, trouble = predictions.info, []
    if info.get("num_divergences", 0) > 0:
        trouble.append(
            f"{info['num_divergences']:.0f} transitions diverged: the posterior may not be explored."
        )
    if is_mixing_unknown(predictions):
        chains = predictions.num_chains
        why = why_unknown(chains, predictions.num_target_draws // chains)
        why = why or "a logit was moved by no chain, or is not finite"
        return [*trouble, f"Whether the chains have converged is not known: {why}."]
    if (rhat := info.get("max_rhat", 1.0)) > WORST_RHAT:
        trouble.append(f"R-hat is {rhat:.3f}, above {WORST_RHAT}: the chains disagree.")
    elif rhat > GOOD_RHAT:
        trouble.append(
            f"R-hat is {rhat:.3f}, above {GOOD_RHAT}: good enough for means, not for tails."
        )
    needed = ESS_PER_CHAIN * predictions.num_chains
    for where, field in (("in bulk", "min_bulk_ess"), ("in the tails", "min_tail_ess")):
        if (ess := info.get(field, np.inf)) < needed:
            trouble.append(
                f"The effective sample size {where} is {ess:.0f}, below {needed} ({ESS_PER_CHAIN} per "
                "chain)."
            )
    return trouble
