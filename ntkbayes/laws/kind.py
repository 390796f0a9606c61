"""What kinds of law there are.

Every method declares the `Kind` of its law. It travels with the law through predictions, files and
reports, so that nothing has to guess what a law is from its name or its diagnostics.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any


class Sampling(StrEnum):
    """How the draws of a law come about."""

    POINT = "point"
    INITIALISATIONS = "independent initialisations"
    PERTURBED_INITIALISATIONS = "independent perturbed initialisations"
    GAUSSIAN = "independent draws of a Gaussian"
    RESAMPLING = "importance resampling"
    CHAINS = "Markov chains"


@dataclass(frozen=True)
class Kind:
    """What a law is. Two kinds are equal if their names are.

    Attributes:
        name: unique, as in "random init".
        sampling: how its draws come about.
        description: one paragraph for the readers of a report, beginning in lower case.
        is_posterior: whether its draws are the posterior's, up to Monte Carlo error: a point can then
            be left out by weighting them (`az.loo`).
    """

    name: str
    sampling: Sampling = field(compare=False)
    description: str = field(compare=False)
    is_posterior: bool = field(default=False, compare=False)

    @property
    def plain(self) -> dict[str, str | bool]:
        """As plain data, for files."""
        return {**asdict(self), "sampling": str(self.sampling)}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "Kind":
        """The inverse of `plain`. Raises KeyError, TypeError or ValueError of other data."""
        name, description = str(plain["name"]), str(plain["description"])
        return cls(name, Sampling(plain["sampling"]), description, bool(plain["is_posterior"]))

    def at_temperature(self, temperature: float) -> "Kind":
        """The kind of such a law fitted with the likelihood to the power 1/T; itself for T = 1."""
        if temperature == 1:
            return self
        told = f"{self.description} Here at temperature {temperature:g}: the log likelihood is divided "
        return replace(self, description=f"{told}by it in the fit, not in predictions.")

    @property
    def temperature_scaled(self) -> "Kind":
        """The kind of a law whose logits are divided by a temperature."""
        return replace(
            self,
            name=f"temperature-scaled {self.name}",
            description="the following law with its logits divided by the temperature that "
            f"cross-validation chose: {self.description}",
            is_posterior=False,
        )


EXACT_POSTERIOR = Kind(
    "posterior",
    Sampling.CHAINS,
    "the exact posterior under the prior GP(m, Θ/ridge), by Markov chains: exact up to Monte Carlo "
    "error.",
    is_posterior=True,
)
GIVEN = Kind(
    "given ensemble",
    Sampling.INITIALISATIONS,
    "members that were trained elsewhere: what they were trained on, and how, is not known here.",
)
BASELINE = Kind(
    "baseline",
    Sampling.POINT,
    "a baseline for scale: class probabilities of another model, with no law of functions behind them.",
)
BASE_RATE = Kind(
    "base rate",
    Sampling.POINT,
    "the class frequencies of the training points, the same at every input: what any law must beat to "
    "have learnt from the features.",
)
BASE_RATE_OF_NUMBERS = replace(
    BASE_RATE,
    description="the distribution of the training targets, the same at every input: what any law must "
    "beat to have learnt from the features.",
)
BASELINE_OF_NUMBERS = replace(
    BASELINE,
    description="a baseline for scale: predictive distributions of another model, with no law of "
    "functions behind them.",
)
