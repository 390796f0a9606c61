"""The two Bayesian readings of a trained network, and what they make of a ratio of variances (THEORY 9).

With ρ = ridge × temperature, the posterior with prior GP(m, Θ/ρ) at T = 1 and that with prior GP(m, Θ)
at T = ρ have the same mode. The covariance is proportional to T: exactly for Laplace, and to first
order for other Bayesian laws. Laws over initialisations know nothing of it.
"""

from collections.abc import Mapping

from ntkbayes.comparison import Comparison
from ntkbayes.laws import FirstOrder, Kind, Sampling


def temperature_of(settings: Mapping[str, object]) -> float:
    """Of a comparison's settings; 1 if they do not tell."""
    temperature = settings.get("temperature")
    return float(temperature) if isinstance(temperature, int | float) else 1.0


def effective_ridge(settings: Mapping[str, object]) -> float | None:
    """ρ of a comparison's settings; None if they do not tell, or it is 0."""
    record = settings.get("ridge")
    ridge = record.get("value") if isinstance(record, Mapping) else None
    if not isinstance(ridge, int | float) or not ridge > 0:
        return None
    return float(ridge) * temperature_of(settings)


def other_temperatures(comparison: Comparison) -> tuple[float, ...]:
    """1 and ρ, but for that of the fits themselves; none where the reference is no Bayesian law."""
    ridge = effective_ridge(comparison.settings)
    kind = comparison.predictions[comparison.reference].kind
    if ridge is None or kind.sampling is Sampling.POINT or is_of_initialisations(kind):
        return ()
    own = temperature_of(comparison.settings)
    return tuple(t for t in dict.fromkeys((1.0, ridge)) if abs(t / own - 1) > 1e-9)


def factor(comparison: Comparison, name: str, temperature: float) -> float:
    """What the ratio of a law's variance to the reference's is multiplied by at this temperature."""
    if not is_of_initialisations(comparison.predictions[name].kind):
        return 1.0
    return temperature_of(comparison.settings) / temperature


def is_of_initialisations(kind: Kind) -> bool:
    """Whether the spread of such a law is what random initialisation leaves."""
    return kind.sampling is Sampling.INITIALISATIONS or kind == FirstOrder.kind
