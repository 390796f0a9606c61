"""What the numbers say: sentences, every one computed."""

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from ntkbayes.app.report import conventions
from ntkbayes.app.report.chains import MIXING, chain_trouble, is_mixing_unknown
from ntkbayes.app.report.words import listed, with_interval, with_meaning
from ntkbayes.comparison import Comparison
from ntkbayes.laws import FiniteEnsemble, Laplace, RandomInit, Sampling
from ntkbayes.laws.chains.hierarchical import HIERARCHICAL_POSTERIOR
from ntkbayes.laws.kind import BASE_RATE, EXACT_POSTERIOR
from ntkbayes.repeated import ROPE
from ntkbayes.scores import calibration
from ntkbayes.scores.intervals import Interval, Over


class Remark(NamedTuple):
    """A sentence or two, and what it is about."""

    topic: str
    text: str


def remarks(comparison: Comparison) -> list[Remark]:
    """The comparison in a few sentences, every one computed."""
    overview = [
        _best(comparison),
        *_base_rate(comparison),
        _calibration(comparison),
        *_spreads(comparison),
    ]
    return [*overview, *_laplace_and_nuts(comparison), *_chains(comparison)]


def unfinished(settings: Mapping[str, object]) -> str:
    """Which laws, or splits, are missing from a comparison with these settings, because a run was
    interrupted; "" if none is."""
    missing = settings.get("unfinished")
    if not isinstance(missing, list) or not missing:
        return ""
    return (
        f"Not finished yet: {listed(list(map(str, missing)))}. The command that was interrupted goes on "
        "from the others."
    )


def confidence_gap(comparison: Comparison, name: str) -> Interval:
    """Mean confidence less accuracy, with a 90% bootstrap interval over test points."""
    p = comparison.of_classes[name]
    return calibration.bootstrap(_GAP, p.probabilities, p.targets, seed=comparison.seed)


def _signed_gap(probabilities: ArrayLike, targets: ArrayLike) -> Float[np.ndarray, " n"]:
    top = np.asarray(probabilities, dtype=np.float64).max(axis=1)
    return top - calibration.correctness(probabilities, targets)


_GAP = calibration.Mean(_signed_gap)


def _best(comparison: Comparison) -> Remark:
    nll = {name: row["nll"] for name, row in comparison.scores.items()}
    best = min(nll, key=lambda name: nll[name].value)
    if not np.isfinite(nll[best].value):
        return Remark("Best prediction", "All negative log likelihoods are infinite.")
    text = f"{best} has the lowest negative log likelihood in nats per point, {with_meaning(nll[best])}."
    others = {name: _difference(comparison, best, name) for name in nll if name != best}
    if (against := others.get(comparison.reference)) is not None:
        verdict = "significant" if against.upper < 0 else "not significant"
        text += (
            f" Against {comparison.reference}, the reference, the difference is "
            f"{with_interval(against)}: {verdict} at this number of test points."
        )
    level = [name for name, difference in others.items() if not difference.upper < 0]
    worse = [name for name in others if name not in level]
    if worse:
        text += f" It is significantly better than {listed(worse)}."
        close = [name for name in worse if others[name].lower > -ROPE]
        if close:
            lost = f"lose less than {ROPE:g} nats per point, which hardly matters"
            text += f" Of these {listed(close)} {lost}."
    if level:
        text += f" The test points do not tell it apart from {listed(level)}."
    return Remark("Best prediction", text)


def _base_rate(comparison: Comparison) -> list[Remark]:
    """Which laws lose to the training targets' own distribution."""
    said = []
    what, remedy, told = (
        ("class frequencies", "probabilities are of no use", "the classes apart")
        if comparison.is_of_classes
        else ("targets’ distribution", "predictions are of no use", "anything of the targets")
    )
    for base in (n for n, p in comparison.predictions.items() if p.kind == BASE_RATE):
        others = [name for name in comparison.predictions if name != base]
        excess = {name: _difference(comparison, name, base) for name in others}
        worse = [f"{n} by {with_interval(d)}" for n, d in excess.items() if d.lower > 0]
        if worse:
            text = (
                f"Worse than the {what} of the training points alone, in nats per point: "
                f"{listed(worse)}. Such {remedy}: choose another ridge, by the evidence or by "
                f"cross-validation, or ask whether the features tell {told}."
            )
            said.append(Remark("Base rate", text))
    return said


def _difference(comparison: Comparison, a: str, b: str) -> Interval:
    """Paired NLL of a less that of b; −∞ throughout where b's is infinite."""
    if not np.isfinite(comparison.scores[b]["nll"].value):
        return Interval(-np.inf, -np.inf, -np.inf, over=Over.POINTS)
    return comparison.score_difference(a, b, "nll")


def _calibration(comparison: Comparison) -> Remark:
    return _confidence(comparison) if comparison.is_of_classes else _coverage(comparison)


def _coverage(comparison: Comparison) -> Remark:
    """Whether 90% intervals hold 90% of the targets, and predictions lie on one side of them."""
    narrow, wide, within = [], [], []
    for name, row in comparison.scores.items():
        covered = row["coverage_90"]
        told = f"{name}, whose hold {with_interval(covered)}"
        if covered.upper < _NOMINAL:
            narrow.append(told)
        elif covered.lower > _NOMINAL:
            wide.append(told)
        else:
            within.append(name)
    parts = []
    if narrow:
        parts.append(f"Over-confident, with 90% intervals that are too narrow: {listed(narrow)}.")
    if wide:
        parts.append(f"Under-confident, with 90% intervals that are too wide: {listed(wide)}.")
    if within:
        parts.append(f"90% intervals hold 90% of the targets within error: {listed(within)}.")
    return Remark("Calibration", " ".join([*parts, *_one_sided(comparison)]))


def _one_sided(comparison: Comparison) -> list[str]:
    """Which laws predict too low, or too high: the mean of the PIT is above or below ½."""
    low, high = [], []
    for name, p in comparison.of_numbers.items():
        middle = (p.pit.lower + p.pit.upper).mean(axis=1) / 2
        mean = calibration.interval_of(
            calibration.WeightedMean(middle), len(middle), seed=comparison.seed
        )
        if mean.lower > 0.5:
            low.append(name)
        elif mean.upper < 0.5:
            high.append(name)
    said = []
    if low:
        said.append(f"Too low on average, as the targets’ mean rank shows: {listed(low)}.")
    if high:
        said.append(f"Too high on average, as the targets’ mean rank shows: {listed(high)}.")
    return said


_NOMINAL = 0.9


def _confidence(comparison: Comparison) -> Remark:
    over, under, within = [], [], []
    for name in comparison.predictions:
        gap = confidence_gap(comparison, name)
        if gap.lower > 0:
            over.append(f"{name} by {with_interval(gap)}")
        elif gap.upper < 0:
            less = replace(gap, value=-gap.value, lower=-gap.upper, upper=-gap.lower)
            under.append(f"{name} by {with_interval(less)}")
        else:
            within.append(name)
    parts = []
    if over:
        parts.append(f"Over-confident, with mean confidence above accuracy: {listed(over)}.")
    if under:
        parts.append(f"Under-confident, with mean confidence below accuracy: {listed(under)}.")
    if within:
        parts.append(f"Well calibrated within error: {listed(within)}.")
    return Remark("Calibration", " ".join(parts))


_MEANT = {
    EXACT_POSTERIOR: "the exact posterior",
    HIERARCHICAL_POSTERIOR: "the hierarchical posterior",
    Laplace.kind: "the Laplace posterior",
}
_OF_INITIALISATIONS = (RandomInit.kind, FiniteEnsemble.kind)


def _spreads(comparison: Comparison) -> list[Remark]:
    reference = comparison.reference
    settings = comparison.settings
    meant = _MEANT.get(comparison.predictions[reference].kind, reference)
    if (own_temperature := conventions.temperature_of(settings)) != 1:
        meant += f" at temperature {own_temperature:.3g}"
    said = []
    for name, predictions in comparison.predictions.items():
        if predictions.kind not in _OF_INITIALISATIONS or name == reference:
            continue
        ratio = comparison.distances[name].get("variance_ratio")
        if ratio is None or not np.isfinite(ratio.value):
            continue
        bounds = {0.1: "far more … than", 0.8: "more … than", 1.25: "about as … as"}
        words = next((w for bound, w in bounds.items() if ratio.value < bound), "less … than")
        own, its = (comparison.uncertainty[n]["epistemic"] for n in (name, reference))
        unit = "nats" if comparison.is_of_classes else "squared units of the target"
        text = (
            f"The logits of {name} have {ratio.value:.2g} of the variance of {meant}: training from "
            f"random initialisation alone is {words.replace('…', 'confident')} {meant}. Its epistemic "
            f"uncertainty is {own:.2g} {unit}, against {its:.2g}."
        )
        for temperature in conventions.other_temperatures(comparison):
            other = conventions.factor(comparison, name, temperature) * ratio.value
            ridge = "" if temperature != 1 else f"/{conventions.effective_ridge(settings):.3g}"
            text += (
                f" Beside the posterior with the same mode at temperature {temperature:.3g}, whose "
                f"prior is GP(m, Θ{ridge}), the ratio is {other:.2g} to first order."
            )
        said.append(Remark("Spread", text))
    return said


def _laplace_and_nuts(comparison: Comparison) -> list[Remark]:
    own = comparison.predictions[comparison.reference].kind
    other = {EXACT_POSTERIOR: Laplace.kind, Laplace.kind: EXACT_POSTERIOR}.get(own)
    said = []
    for name in (n for n, p in comparison.predictions.items() if p.kind == other):
        row = comparison.distances[name]
        tv, energy, ratio = row.get("tv"), row["energy"], row["variance_ratio"].value
        laplace, nuts = (name, comparison.reference)[:: 1 if own == EXACT_POSTERIOR else -1]
        size = f"{energy.value:.3f} ± {energy.error:.3f}"
        logits = f"by an energy coefficient of {size} (0 if equal, at most 1): "
        if tv is None:
            text, apart = f"The laws of the logits of {laplace} and {nuts} differ {logits}", 0.0
        else:
            apart = tv.value
            text = (
                f"Class probabilities of {laplace} and {nuts} differ by {apart:.3f} ± {tv.error:.3f} on "
                f"average (total variation), the laws of their logits {logits}"
            )
        if max(apart, energy.value) < 0.02:
            text += "the Gaussian approximation is close to the posterior."
        elif max(apart, 0.0 if tv else energy.value) < 0.05:
            text += "the Gaussian approximation is near the posterior, not equal to it."
        else:
            text += "the Gaussian approximation is visibly not the posterior."
            if 0.8 < ratio < 1.25:
                text += f" The spread agrees (variance ratio {ratio:.2f}); mean and shape do not."
        said.append(Remark("Laplace against the exact posterior", text))
    return said


def _chains(comparison: Comparison) -> list[Remark]:
    said = []
    for name, p in comparison.predictions.items():
        if p.kind.sampling is Sampling.CHAINS and {"num_divergences", *MIXING} <= set(p.info):
            text = f"{name} has {p.info['num_divergences']:.0f} divergences"
            if not is_mixing_unknown(p):
                rhat, bulk, tail = (p.info[field] for field in MIXING)
                text += (
                    f", R-hat of at most {rhat:.3f} and effective sample sizes of at least {bulk:.0f} "
                    f"in bulk and {tail:.0f} in the tails"
                )
            text += (
                ": see the warning below." if chain_trouble(p) else ": the chains look converged."
            )
            said.append(Remark("Markov chains", text))
    return said
