"""The likelihood of the laboratory, and the mean that goes with it."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from ntkbayes.datasets import Dataset
from ntkbayes.kernels import EmpiricalKernel
from ntkbayes.lazy.points import Points
from ntkbayes.likelihood import Likelihood, default_likelihood
from ntkbayes.networks import Network
from ntkbayes.priors.prior import NTKPrior
from ntkbayes.selection.likelihood_rules import LikelihoodRule, NormalByEvidence
from ntkbayes.selection.ridge import GivenRidge


class Setting(NamedTuple):
    """What all networks of a study are trained under.

    Attributes:
        likelihood: p(y | f).
        mean: added to every network's logits: a number, or one per logit.
    """

    likelihood: Likelihood
    mean: object

    @classmethod
    def of(
        cls,
        given: Likelihood | LikelihoodRule | None,
        mean: object,
        train: Dataset,
        network_of: Callable[[int], Network],
        key: PRNGKeyArray,
        *,
        ridge: float,
    ) -> "Setting":
        """The likelihood as given, or as its rule chooses it from the training points.

        Args:
            given: by default one logit for two classes, softmax for more, `NormalByEvidence` for
                numbers.
            network_of: a network by its number of outputs, for the rules that need a kernel.
            key: of its initialisation.
            ridge: likewise.

        Raises:
            DataError: the likelihood does not take these targets, or they are all alike.
            ConfigurationError: without a ridge, the noise has to be given.
        """
        if given is None:
            given = NormalByEvidence() if train.class_names is None else default_likelihood(train)
        if isinstance(given, Likelihood):
            return cls(given, mean)
        num_outputs = train.targets.shape[1] if train.class_names is None else 1
        network, x = network_of(num_outputs), jnp.asarray(train.features)
        kernel = EmpiricalKernel(network, network.init(jax.random.clone(key), x))
        choice = given.choose(NTKPrior(kernel, ridge=ridge, mean=mean), train, ridge=GivenRidge())
        return cls(choice.likelihood, choice.prior.mean)

    def points(
        self, train: Dataset, test: Dataset, *, num_probes: int, key: PRNGKeyArray
    ) -> Points:
        """Training and test points as networks take them; see `Points.build`.

        Raises:
            ConfigurationError: predictions under the likelihood cannot be compared.
        """
        points = Points.build(
            train, test, self.likelihood, num_probes=num_probes, key=key, mean=self.mean
        )
        self.likelihood.total_variation(points.mean[None], points.mean[None])
        return points
