"""What a method is given."""

import math
from collections.abc import Hashable
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ntkbayes.datasets import Columns, Dataset, read_inputs
from ntkbayes.datasets.given import require_dataset
from ntkbayes.display import Sheet, Summarised, brief, count, few, number
from ntkbayes.errors import ConfigurationError
from ntkbayes.kernels import KernelPair
from ntkbayes.likelihood import ClassLikelihood, Likelihood, default_likelihood
from ntkbayes.likelihood.base import require_likelihood
from ntkbayes.linalg import FormedGram, Gram, Logits, Portable, num_shares, require_shares
from ntkbayes.priors import paths
from ntkbayes.priors.paths import Process, TangentProcess
from ntkbayes.priors.prior import NTKPrior, require_prior
from ntkbayes.training.objective import Objective

Inputs = Any
"""Inputs to predict at: a `Dataset`, a data frame with the training data's columns, or an array (m, d)
on the scale of the training features."""


def require_problem(call: str, prior: Any, data: Any, likelihood: Any) -> None:
    """Raises ArgumentError unless these are a prior, a data set, and a likelihood or None."""
    require_prior(call, "prior", prior)
    require_dataset(call, "data", data)
    if likelihood is not None:
        require_likelihood(call, "likelihood", likelihood)
        if not likelihood.is_log_concave:
            raise ConfigurationError(
                f"{type(likelihood.untempered).__name__} is not log-concave in the logits, so that no "
                "law describes training by it: it is for nb.lazy alone; use Categorical()"
            )


class Problem(Summarised, Portable, eqx.Module):
    """Prior, training data, likelihood, and the Grams that every method shares.

    Attributes:
        features: X, (n, d).
        targets: as the likelihood encodes them, (n, C).
        mean: of the prior at X, (n, C).
        gram: K and Θ at X.
    """

    prior: NTKPrior
    likelihood: Likelihood
    features: Float[Array, "n ..."]
    targets: Logits
    mean: Logits
    gram: KernelPair
    class_names: tuple[Hashable, ...] | None = eqx.field(static=True)
    columns: Columns = eqx.field(static=True)

    @classmethod
    def build(cls, prior: NTKPrior, data: Dataset, likelihood: Likelihood | None) -> "Problem":
        """Encode the data and evaluate the Grams. Errors: see `Method.fit`."""
        if likelihood is None:
            likelihood = default_likelihood(data)
        targets = likelihood.encode(data)
        features = jax.device_put(data.check_features(data))
        size = targets.shape[1]
        known = prior.kernel.num_outputs(features)
        if known not in (None, size):
            raise ConfigurationError(
                f"the network has {known} outputs, but {type(likelihood.untempered).__name__} takes "
                f"{size} of these data; make the network with {size}, or choose another likelihood"
            )
        require_shares(len(features))
        mean = prior.mean_logits(features, size)
        if not np.isfinite(mean).all():
            raise ConfigurationError("the prior's mean is not finite at some training points")
        prior.require_covariance(features)
        gram = prior.gram(features)
        return cls(prior, likelihood, features, targets, mean, gram, data.class_names, data.columns)

    def take(self, points: Bool[np.ndarray, " n"] | Int[np.ndarray, " k"]) -> "Problem":
        """The problem of some of the training points."""
        features, targets, mean = (v[points] for v in (self.features, self.targets, self.mean))
        require_shares(len(features))
        chosen = np.arange(len(self.targets))[points]
        if isinstance(self.gram.ntk, FormedGram) and num_shares() == 1:
            gram = self.gram.map(lambda whole: whole.among(chosen))
        else:
            gram = self.prior.gram(features)
        names, columns = self.class_names, self.columns
        return Problem(self.prior, self.likelihood, features, targets, mean, gram, names, columns)

    @property
    def facts(self) -> dict[str, str]:
        """What reports of the fit begin with."""
        num_points, *features = np.shape(self.features)
        scaled = ", standardised" if self.columns.scaling is not None else ""
        inputs = "feature" if len(features) == 1 else "input"
        facts = {
            "trained on": f"{count(num_points, 'point')}, {count(math.prod(features), inputs)}{scaled}"
        }
        if self.class_names is not None:
            facts["classes"] = f"{len(self.class_names)}: {few(self.class_names)}"
        kernel = self.prior.kernel
        facts |= {
            "likelihood": brief(self.likelihood.untempered),
            "ridge": number(self.prior.ridge),
        }
        if self.temperature != 1:
            facts["temperature"] = number(self.temperature)
        return {**facts, "network": brief(getattr(kernel, "network", kernel))}

    @property
    def _sheet(self) -> Sheet:
        return Sheet("problem", self.facts)

    @property
    def class_likelihood(self) -> ClassLikelihood:
        """Raises ConfigurationError if targets are not classes, or the likelihood has no probabilities
        of them; see `Likelihood.of_classes`."""
        if self.class_names is None:
            return Likelihood.of_classes(self.likelihood.untempered)
        return self.likelihood.of_classes()

    @property
    def temperature(self) -> float:
        """T of the likelihood, which enters the fit to the power 1/T."""
        return float(self.likelihood.temperature)

    def evidence(self, log_evidence: Float[Array, ""] | float) -> float:
        """The log evidence that a method found; NaN at a temperature other than 1, where p(y | f)^(1/T)
        is no density of the targets."""
        return float(log_evidence) if self.temperature == 1 else math.nan

    @property
    def ridge(self) -> float:
        """Of a problem that is not being traced."""
        return float(self.prior.ridge)

    @property
    def num_outputs(self) -> int:
        """C."""
        return self.targets.shape[1]

    def read(self, inputs: Inputs) -> Float[Array, "m ..."]:
        """New inputs in the order and on the scale of the training features; see `read_inputs`.

        Of inputs that JAX is tracing, whose values cannot be seen, the shape alone is checked.
        """
        if isinstance(inputs, jax.core.Tracer):
            return self.columns.require_width(inputs)
        return jax.device_put(read_inputs(self.columns, inputs))

    @property
    def prior_gram(self) -> Gram:
        """P = Θ(X, X) / ridge."""
        return self.gram.ntk / self.prior.ridge

    @property
    def objective(self) -> Objective:
        """What training minimises, from any initial function."""
        return Objective(self.likelihood, self.gram.ntk, self.targets, self.prior.ridge)

    @property
    def initial_process(self) -> Process:
        """The law of the initial function less its mean."""
        return self.initial_process_at(1.0)

    def initial_process_at(self, scale: float) -> Process:
        """The same, times a scale."""
        return paths.initial_process(self.prior, self.features, self.gram, self.num_outputs, scale)

    @property
    def tangent_process(self) -> Process:
        """The Bayesian prior less its mean, GP(0, Θ/ridge)."""
        return paths.tangent_process(self.prior, self.features, self.gram, self.num_outputs)

    @property
    def conditioned_process(self) -> TangentProcess:
        """The same by the factor of P."""
        given = self.prior, self.features, self.gram, self.num_outputs
        return paths.conditioned_tangent_process(*given)
