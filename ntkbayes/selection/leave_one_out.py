"""Leave-one-out from one fit of a Gaussian posterior."""

import numpy as np
from jaxtyping import Float

from ntkbayes.errors import ConfigurationError
from ntkbayes.laws import Law
from ntkbayes.laws.gaussian.posterior import SitePosterior
from ntkbayes.laws.wrappers.held_out import left_out_score


def leave_one_out(law: Law) -> Float[np.ndarray, " n"]:
    """log p(yᵢ | all other points) of each training point, in nats, from one fit. The sum is the
    leave-one-out ELPD. For soft targets it is Σ_c y_c log p̄_c, minus the cross-entropy.

    Exact for a Normal likelihood. Otherwise approximate, since the sites of the other points are kept
    (see `SitePosterior.leave_one_out`). EP is closest to the exact value, then Variational, then
    Laplace. Laplace is closest to the law's own refits. MeanField with several logits is too low by a
    few hundredths of a nat per point (0.03 on 40 points), because its sites are stiffer than the
    likelihood: use Variational, or cross_validated_nll.

    Raises:
        ConfigurationError: the law is not a Gaussian posterior.
    """
    if not isinstance(law, SitePosterior):
        raise ConfigurationError(
            f"leave-one-out from one fit needs a Gaussian posterior, not {type(law).__name__}; use "
            "cross_validated_nll with as many folds as points"
        )
    return np.asarray(left_out_score(law))
