"""Is an ensemble of trained networks a sample of a law? A permutation test on the energy distance.

Under the null hypothesis that the networks' logits are independent draws of the law, they and draws of
the law itself can be exchanged. So the rank of their energy coefficient among those of random
divisions of all draws is uniform, whatever the law (Székely & Rizzo 2004). A test that does not reject
has shown nothing unless it could have: `LawTest.critical` is the coefficient beyond which it rejects.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from ntkbayes import ranges
from ntkbayes.arguments import random_key, require
from ntkbayes.display import Sheet, Summarised, number
from ntkbayes.errors import ConfigurationError, DataError
from ntkbayes.laws import Law, Sampling
from ntkbayes.laws.law import require_law
from ntkbayes.laws.problem import Inputs
from ntkbayes.ranges import Range
from ntkbayes.scores.distances import Distance, energy_coefficient, permuted_coefficients

if TYPE_CHECKING:
    import pandas as pd

FEWEST_MEMBERS = 10
"""Of an ensemble; fewer could be told from hardly any law."""

_INDEPENDENT = (
    Sampling.INITIALISATIONS,
    Sampling.PERTURBED_INITIALISATIONS,
    Sampling.GAUSSIAN,
)
_CALL = "follows_law(logits, law, features, key=key)"


@dataclass(frozen=True, repr=False)
class LawTest(Summarised):
    """Whether an ensemble is a sample of a law.

    Attributes:
        p_value: share of divisions with a coefficient at least as large, the observed one included:
            uniform on 1/(B + 1), …, 1 if the ensemble is a sample of the law, B divisions.
        coefficient: the energy coefficient between the ensemble's joint logits and the law's, with its
            Monte Carlo error; 0 if equal, at most 1.
        critical: the coefficient above which this ensemble would have been rejected at the level.
        num_members, num_draws: of the ensemble and of the law.
        level: of the test.
    """

    p_value: float
    coefficient: Distance
    critical: float
    num_members: int
    num_draws: int
    level: float

    @property
    def is_rejected(self) -> bool:
        """Whether the ensemble is no sample of the law, at the level."""
        return self.p_value <= self.level

    @property
    def _sheet(self) -> Sheet:
        verdict = "is no sample of the law" if self.is_rejected else "may be a sample of the law"
        found = f"{self.coefficient.value:.4f} ± {self.coefficient.error:.4f}"
        facts = {
            "p-value": number(self.p_value),
            "energy coefficient": f"{found}, rejected above {self.critical:.4f}",
            "compared": f"{self.num_members} members, {self.num_draws} draws of the law",
        }
        return Sheet(f"the ensemble {verdict}, at level {self.level:g}", facts)


@dataclass(frozen=True, repr=False)
class WidthTrend(Summarised):
    """Tests of ensembles of several widths against one law.

    Attributes:
        tests: by width, in increasing order.
        slope: of the energy coefficient per doubling of the width, by weighted least squares.
        error: its standard error.
    """

    tests: Mapping[int, LawTest]
    slope: float
    error: float

    @property
    def falls(self) -> bool:
        """Whether the coefficient falls with the width, by more than two standard errors."""
        return self.slope < -2 * self.error

    def table(self) -> "pd.DataFrame":
        """A row per width: the energy coefficient and its error, from where on it is rejected, and the
        p-value."""
        import pandas as pd

        rows = {
            width: {
                "energy": test.coefficient.value,
                "energy_error": test.coefficient.error,
                "critical": test.critical,
                "p_value": test.p_value,
                "rejected": test.is_rejected,
            }
            for width, test in self.tests.items()
        }
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("width")

    @property
    def _sheet(self) -> Sheet:
        words = "falls" if self.falls else "does not fall"
        facts = {"per doubling of the width": f"{self.slope:.4f} ± {self.error:.4f}"}
        header = ("width", "energy coefficient", "rejected above", "p-value")
        rows = [
            [
                str(width),
                f"{test.coefficient.value:.4f} ± {test.coefficient.error:.4f}",
                f"{test.critical:.4f}",
                number(test.p_value),
            ]
            for width, test in self.tests.items()
        ]
        return Sheet(f"the distance to the law {words} with the width", facts, header, rows)


def follows_law(
    logits: Any,
    law: Law,
    features: Inputs,
    *,
    key: PRNGKeyArray,
    num_draws: int | None = None,
    num_permutations: int = 999,
    level: float = 0.05,
) -> LawTest:
    """Whether trained networks are a sample of a law, such as that of `RandomInit`.

    Both are compared by their joint logits at the inputs, up to what the likelihood cannot see: the mean
    over classes, of softmax. Take inputs that matter to you, held-out ones among them; a few dozen do.

    Args:
        logits: of each network at the inputs, from any framework, (members, m, C), or (members, m)
            where C = 1. The networks must be trained as the law says, with its ridge.
        law: with independent draws.
        features: the inputs at which the logits were computed, (m, d), in the same order: as for
            `Law.sample`.
        key: of the law's draws and the divisions; same key, same p-value.
        num_draws: of the law; all that are stored, or 1000, if None.
        num_permutations: B, random divisions. The smallest p-value is 1/(B + 1).
        level: at which `is_rejected` judges.

    Raises:
        DataError: the logits are not finite, have another shape than the law's at these inputs, or are
            of fewer than 10 networks.
        ConfigurationError: the law is a point, or its draws depend on each other (Markov chains); or a
            number is outside its range, such as a level below 1/(B + 1).
        ArgumentError: the law is something else.
    """
    require_law(_CALL, "law", law)
    key = random_key(key)
    num_permutations = ranges.whole("num_permutations", num_permutations, at_least=19)
    level = float(ranges.real("the level", level, Range.OPEN_UNIT))
    if level * (num_permutations + 1) < 1:
        raise ConfigurationError(
            f"{num_permutations} permutations give no p-value below the level {level:g}; use "
            f"{int(np.ceil(1 / level)) - 1} or more"
        )
    _require_independent(law)
    inputs = law.problem.read(features)
    ensemble = _members(logits, len(inputs), law.problem.num_outputs)
    draw_key, division_key = jax.random.split(key)
    drawn = law.sample(draw_key, features, num_draws)
    project = law.problem.likelihood.project
    ours, theirs = (np.asarray(project(jnp.asarray(each))) for each in (ensemble, drawn))
    rng = np.random.default_rng(np.asarray(jax.random.key_data(division_key)))
    observed, divided = permuted_coefficients(ours, theirs, rng, num_permutations)
    rank = 1 + int(np.sum(divided >= observed))
    # The p-value is at most the level where at most so many divisions are as large.
    allowed = int(np.floor(level * (num_permutations + 1) + 1e-9)) - 1
    critical = np.sort(divided)[::-1][allowed]
    most = max(len(ours), len(theirs))
    return LawTest(
        rank / (num_permutations + 1),
        energy_coefficient(ours, theirs, max_draws=most),
        float(critical),
        len(ours),
        len(theirs),
        level,
    )


def over_widths(
    logits: Mapping[int, Any],
    law: Law,
    features: Inputs,
    *,
    key: PRNGKeyArray,
    num_draws: int | None = None,
    num_permutations: int = 999,
    level: float = 0.05,
) -> WidthTrend:
    """`follows_law` of ensembles of several widths, and the trend of their distance to the law.

    A wide lazy ensemble nears its law as 1/width. Use the same number of networks at each
    width, so that the tests have equal power.

    Args:
        logits: by width, as for `follows_law`.
        law, features, key, num_draws, num_permutations, level: as for `follows_law`.

    Raises:
        ConfigurationError: there are fewer than two widths; and as `follows_law` does.
        DataError: as `follows_law` does.
    """
    require("over_widths(logits, law, features, key=key)", "logits", logits, Mapping, _by_width)
    widths = sorted(ranges.whole("a width", width) for width in logits)
    if len(widths) < 2:
        raise ConfigurationError(f"a trend takes two widths or more; got {widths}")
    options = {"num_draws": num_draws, "num_permutations": num_permutations, "level": level}
    tests = {w: follows_law(logits[w], law, features, key=key, **options) for w in widths}  # type: ignore[arg-type]
    return WidthTrend(tests, *_slope(tests))


def _slope(tests: Mapping[int, LawTest]) -> tuple[float, float]:
    """Of the coefficients in log₂ width, and its standard error."""
    doublings = np.log2(np.asarray(list(tests), dtype=float))
    values, errors = (
        np.asarray([getattr(test.coefficient, part) for test in tests.values()])
        for part in ("value", "error")
    )
    weights = 1 / np.maximum(errors, 1e-12) ** 2
    centred = doublings - np.average(doublings, weights=weights)
    information = np.sum(weights * centred**2)
    return float(np.sum(weights * centred * values) / information), float(information**-0.5)


def _by_width(given: Any) -> str:
    return "give the logits by width, as in {64: narrow, 1024: wide}"


def _require_independent(law: Law) -> None:
    if law.kind.sampling is Sampling.POINT:
        raise ConfigurationError(
            f"the law of {law.kind.name} is one function, of which no ensemble is a sample; give the "
            "law over initialisations, such as that of RandomInit"
        )
    if law.kind.sampling not in _INDEPENDENT:
        raise ConfigurationError(
            f"draws of {law.kind.name} depend on each other ({law.kind.sampling}), so that they cannot "
            "be exchanged with networks: give a law with independent draws, or compare by "
            "distances.energy_coefficient, whose error knows of it"
        )


def _members(
    logits: Any, num_inputs: int, num_outputs: int
) -> Float[np.ndarray, "members m outputs"]:
    """The ensemble's logits as (members, m, C). Raises DataError as `follows_law` does."""
    try:
        members = np.asarray(logits, dtype=float)
    except (TypeError, ValueError) as error:
        raise DataError(f"the ensemble's logits are not an array of numbers: {error}") from None
    if members.ndim == 2 and num_outputs == 1:
        members = members[:, :, None]
    if members.ndim != 3 or members.shape[1:] != (num_inputs, num_outputs):
        raise DataError(
            f"the ensemble's logits have shape {members.shape}, but the law has {num_outputs} "
            f"{'logit' if num_outputs == 1 else 'logits'} at each of {num_inputs} inputs: give "
            f"(members, {num_inputs}, {num_outputs}), at these inputs and in their order"
        )
    if len(members) < FEWEST_MEMBERS:
        raise DataError(
            f"the ensemble has {len(members)} members, too few to be told from a law; train "
            f"{FEWEST_MEMBERS} or more"
        )
    if not np.isfinite(members).all():
        member = int(np.argwhere(~np.isfinite(members))[0][0])
        raise DataError(f"the logits of member {member} are not finite; leave out what diverged")
    return members
