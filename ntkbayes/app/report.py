"""The report: a comparison as one HTML file that needs nothing else, to be read or sent on.

Its sentences are computed from the numbers (`findings`), its tables are `Comparison`'s, and its
figures are those of `figures`. What it says regardless of the numbers is in report.html, piece by piece.
"""

import base64
import io
import os
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from ntkbayes.bridges.arviz import to_datatree
from ntkbayes.comparison import Comparison, sum_over_points
from ntkbayes.errors import ConfigurationError
from ntkbayes.files import held, write_text
from ntkbayes.laws.chains.mixing import ESS_PER_CHAIN, GOOD_RHAT, WORST_RHAT, why_unknown
from ntkbayes.laws.wrappers.held_out import expected_log
from ntkbayes.predictions import Predictions
from ntkbayes.scores import calibration
from ntkbayes.scores.calibration import Interval
from ntkbayes.storage import comparisons as storage

if TYPE_CHECKING:
    from arviz_stats.utils import ELPDData

SCORES = {
    "nll": "NLL",
    "brier": "Brier",
    "accuracy": "Accuracy",
    "ece": "ECE",
    "ece_equal_mass": "ECE, equal mass",
    "ece_classwise": "ECE, class‑wise",
}


class Finding(NamedTuple):
    """A sentence or two, and what it is about."""

    topic: str
    text: str


def write(comparison: Comparison, folder: str | os.PathLike) -> Path:
    """Write `report.html` into a folder. Returns its path.

    Raises:
        FolderInUseError: another run has the folder.
        StorageError: the folder cannot be written to.
    """
    folder = Path(folder)
    storage.prepare_folder(folder)
    path = folder / "report.html"
    with held(folder):
        write_text(path, page(comparison, folder))
    return path


def require_drawing() -> None:
    """Import what draws the figures, which a report needs at its end.

    Raises:
        ConfigurationError: matplotlib cannot be imported as this process is set up.
    """
    try:
        from ntkbayes import figures  # noqa: F401
    except Exception as error:  # a wrong MPLBACKEND, no folder for its cache, a broken matplotlibrc
        raise ConfigurationError(
            f"matplotlib, which draws the report, does not start: {error}; see to MPLBACKEND, "
            "MPLCONFIGDIR or the matplotlibrc"
        ) from error


def page(comparison: Comparison, folder: str | os.PathLike) -> str:
    """The report as HTML; `folder` is where it says that the comparison can be loaded from."""
    with np.errstate(invalid="ignore"):
        # Against a point, or where a score is infinite, errors are undefined.
        _ = comparison.distances, comparison.elpd_difference
    sections = (
        _laws(comparison),
        _in_short(comparison),
        _scores(comparison),
        _prose("section calibration", reliability=_figure("reliability", comparison)),
        _uncertainty(comparison),
        _distances(comparison),
        _plane(comparison),
        _leave_one_out(comparison),
        _diagnostics(comparison),
        _settings(comparison, folder),
    )
    versions = comparison.settings.get("versions")
    return _prose(
        "page",
        version=_e(versions.get("ntkbayes", "")) if isinstance(versions, Mapping) else "",
        title=_e(comparison.settings.get("data", "Comparison")),
        style=_file("report.css"),
        lead=_lead(comparison),
        body="\n".join(f"<section>\n{section}\n</section>" for section in sections if section),
    )


@cache
def _file(name: str) -> str:
    return resources.files("ntkbayes").joinpath(name).read_text(encoding="utf-8")


@cache
def _pieces() -> dict[str, Template]:
    """The pieces of report.html by name: each starts with a comment that names it."""
    _, *parts = re.split(r"^<!-- (.+) -->$", _file("report.html"), flags=re.MULTILINE)
    return {
        name: Template(text.strip()) for name, text in zip(parts[::2], parts[1::2], strict=True)
    }


def _prose(name: str, **values: str) -> str:
    return _pieces()[name].substitute(values)


# --- what the numbers say -------------------------------------------------------------------------


def findings(comparison: Comparison) -> list[Finding]:
    """The comparison in a few sentences, every one computed."""
    found = [_best(comparison), _confidence(comparison), *_spreads(comparison)]
    return [*found, *_laplace_and_nuts(comparison), *_chains(comparison)]


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


def confidence_gap(comparison: Comparison, name: str) -> Interval:
    """Mean confidence less accuracy, with a 90% bootstrap interval over test points."""
    p = comparison.predictions[name]
    return calibration.bootstrap(_GAP, p.probabilities, p.targets, seed=comparison.seed)


def _signed_gap(probabilities: ArrayLike, targets: ArrayLike) -> Float[np.ndarray, " n"]:
    top = np.asarray(probabilities, dtype=np.float64).max(axis=1)
    return top - calibration.correctness(probabilities, targets)


_GAP = calibration.Mean(_signed_gap)
_NLL = calibration.Mean(calibration.negative_log_likelihood)


def _best(comparison: Comparison) -> Finding:
    nll = {name: row["nll"] for name, row in comparison.scores.items()}
    best = min(nll, key=lambda name: nll[name].value)
    if not np.isfinite(nll[best].value):
        return Finding("Best prediction", "All negative log likelihoods are infinite.")
    text = f"{best} has the lowest negative log likelihood, {_value(nll[best])} nats a point."
    others = {name: _difference(comparison, best, name) for name in nll if name != best}
    if (against := others.get(comparison.reference)) is not None:
        verdict = "significant" if against.upper < 0 else "not significant"
        text += (
            f" Against {comparison.reference}, the reference, the difference is {_value(against)}: "
            f"{verdict} at this number of test points."
        )
    level = [name for name, difference in others.items() if not difference.upper < 0]
    worse = [name for name in others if name not in level]
    if worse:
        text += f" It is significantly better than {_listed(worse)}."
    if level:
        text += f" The test points do not tell it apart from {_listed(level)}."
    return Finding("Best prediction", text)


def _difference(comparison: Comparison, a: str, b: str) -> Interval:
    """Paired NLL of a less that of b; −∞ throughout where b's is infinite."""
    if not np.isfinite(comparison.scores[b]["nll"].value):
        return Interval(-np.inf, -np.inf, -np.inf)
    p, q = comparison.predictions[a], comparison.predictions[b]
    return calibration.paired_difference(
        _NLL, p.probabilities, q.probabilities, p.targets, seed=comparison.seed
    )


def _confidence(comparison: Comparison) -> Finding:
    over, under, within = [], [], []
    for name in comparison.predictions:
        gap = confidence_gap(comparison, name)
        if gap.lower > 0:
            over.append(f"{name} by {_value(gap)}")
        elif gap.upper < 0:
            under.append(f"{name} by {_value(Interval(-gap.value, -gap.upper, -gap.lower))}")
        else:
            within.append(name)
    parts = []
    if over:
        parts.append(f"Over-confident, with mean confidence above accuracy: {_listed(over)}.")
    if under:
        parts.append(f"Under-confident, with mean confidence below accuracy: {_listed(under)}.")
    if within:
        parts.append(f"Well calibrated within error: {_listed(within)}.")
    return Finding("Calibration", " ".join(parts))


def _spreads(comparison: Comparison) -> list[Finding]:
    reference = comparison.reference
    meant = {"NUTS": "the exact posterior", "Laplace": "the Laplace posterior"}.get(
        kind(comparison.predictions[reference]), reference
    )
    found = []
    for name, predictions in comparison.predictions.items():
        if kind(predictions) != "random init" or name == reference:
            continue
        ratio = comparison.distances[name].get("variance_ratio")
        if ratio is None or not np.isfinite(ratio.value):
            continue
        bounds = {0.1: "far more … than", 0.8: "more … than", 1.25: "about as … as"}
        words = next((w for bound, w in bounds.items() if ratio.value < bound), "less … than")
        own, its = (comparison.uncertainty[n]["epistemic"] for n in (name, reference))
        text = (
            f"The logits of {name} have {ratio.value:.2g} of the variance of {meant}: training from "
            f"random initialisation alone is {words.replace('…', 'confident')} {meant}. Its epistemic "
            f"uncertainty is {own:.2g} nats, against {its:.2g}."
        )
        found.append(Finding("Spread", text))
    return found


def _laplace_and_nuts(comparison: Comparison) -> list[Finding]:
    own = kind(comparison.predictions[comparison.reference])
    other = {"NUTS": "Laplace", "Laplace": "NUTS"}.get(own)
    found = []
    for name in (n for n, p in comparison.predictions.items() if kind(p) == other):
        row = comparison.distances[name]
        tv, energy, ratio = row["tv"], row["energy"], row["variance_ratio"].value
        laplace, nuts = (name, comparison.reference)[:: 1 if own == "NUTS" else -1]
        text = (
            f"Class probabilities of {laplace} and {nuts} differ by {tv.value:.3f} ± {tv.error:.3f} on "
            f"average (total variation), the laws of their logits by an energy coefficient of "
            f"{energy.value:.3f} ± {energy.error:.3f} (0 if equal, at most 1): "
        )
        if max(tv.value, energy.value) < 0.02:
            text += "the Gaussian approximation is close to the posterior."
        elif tv.value < 0.05:
            text += "the Gaussian approximation is near the posterior, not equal to it."
        else:
            text += "the Gaussian approximation is visibly not the posterior."
            if 0.8 < ratio < 1.25:
                text += f" The spread agrees (variance ratio {ratio:.2f}); mean and shape do not."
        found.append(Finding("Laplace against the exact posterior", text))
    return found


def _chains(comparison: Comparison) -> list[Finding]:
    found = []
    for name, p in comparison.predictions.items():
        if kind(p) == "NUTS" and {"num_divergences", *_MIXING} <= set(p.info):
            text = f"{name} has {p.info['num_divergences']:.0f} divergences"
            if not _is_mixing_unknown(p):
                rhat, bulk, tail = (p.info[field] for field in _MIXING)
                text += (
                    f", R-hat of at most {rhat:.3f} and effective sample sizes of at least {bulk:.0f} "
                    f"in bulk and {tail:.0f} in the tails"
                )
            text += (
                ": see the warning below." if chain_trouble(p) else ": the chains look converged."
            )
            found.append(Finding("Markov chains", text))
    return found


_MIXING = ("max_rhat", "min_bulk_ess", "min_tail_ess")


def _is_mixing_unknown(predictions: Predictions) -> bool:
    """Whether a diagnostic of the chains is none: R-hat is above √½ whatever the chains, an effective
    sample size above 0."""
    bounds = zip(_MIXING, (0.5**0.5, 0.0, 0.0), strict=True)
    values = [
        (predictions.info[field], least) for field, least in bounds if field in predictions.info
    ]
    return not all(np.isfinite(value) and value > least for value, least in values)


def chain_trouble(predictions: Predictions) -> list[str]:
    """What is wrong with the Markov chains, in words; empty if nothing is."""
    info, found = predictions.info, []
    if info.get("num_divergences", 0) > 0:
        found.append(
            f"{info['num_divergences']:.0f} transitions diverged: the posterior may not be explored."
        )
    if _is_mixing_unknown(predictions):
        chains = predictions.num_chains
        why = why_unknown(chains, len(predictions.label_draws) // chains)
        why = why or "a logit was moved by no chain, or is not finite"
        return [*found, f"Whether the chains have converged is not known: {why}."]
    if (rhat := info.get("max_rhat", 1.0)) > WORST_RHAT:
        found.append(f"R-hat is {rhat:.3f}, above {WORST_RHAT}: the chains disagree.")
    elif rhat > GOOD_RHAT:
        found.append(
            f"R-hat is {rhat:.3f}, above {GOOD_RHAT}: good enough for means, not for tails."
        )
    needed = ESS_PER_CHAIN * predictions.num_chains
    for where, field in (("in bulk", "min_bulk_ess"), ("in the tails", "min_tail_ess")):
        if (ess := info.get(field, np.inf)) < needed:
            found.append(
                f"The effective sample size {where} is {ess:.0f}, below {needed} ({ESS_PER_CHAIN} per "
                "chain)."
            )
    return found


# --- sections -------------------------------------------------------------------------------------


def _lead(comparison: Comparison) -> str:
    first = next(iter(comparison.predictions.values()))
    parts = [_count(len(first.targets), "held-out point")]
    if comparison.training:
        trained_on = next(iter(comparison.training.values())).targets
        parts.append(_count(len(trained_on), "training point"))
    if isinstance(features := comparison.settings.get("features"), int):
        parts.append(_count(features, "feature"))
    num_classes = first.targets.shape[1]
    names = [str(name) for name in first.class_names]
    shown = ", ".join(names[:6]) + (", …" if len(names) > 6 else "")
    parts.append(f"{num_classes} classes" + (f" ({shown})" if names else ""))
    return _e(f"{', '.join(parts)}. Reference: {comparison.reference}.")


def _laws(comparison: Comparison) -> str:
    items = "\n".join(
        f"<dt>{_law(comparison, name)}</dt>"
        f"<dd>{_prose(f'law {kind(p)}', sampling=_e(p.sampling))}</dd>"
        for name, p in comparison.predictions.items()
    )
    return _prose("section laws", items=items, reference=_e(comparison.reference))


def _in_short(comparison: Comparison) -> str:
    items = "\n".join(
        f"<li><strong>{topic}.</strong> {_e(text)}</li>" for topic, text in findings(comparison)
    )
    trouble = "\n".join(
        f"<p><strong>{_e(name)}.</strong> {_e(' '.join(found))}</p>"
        for name, p in comparison.predictions.items()
        if (found := chain_trouble(p))
    )
    warning = _prose("warning chains", items=trouble) if trouble else ""
    return _prose("section short", items=items, warning=warning)


def _scores(comparison: Comparison) -> str:
    best = {}
    for score in SCORES:
        values = [row[score].value for row in comparison.scores.values()]
        best[score] = max(values) if score == "accuracy" else min(values)
    rows = []
    for name, row in comparison.scores.items():
        cells = [
            _interval(row[s], bold=len(comparison.scores) > 1 and row[s].value == best[s])
            for s in SCORES
        ]
        cells.append(_interval(confidence_gap(comparison, name), signed=True))
        elpd = comparison.elpd_difference[name]
        is_reference = name == comparison.reference
        value = _data(elpd.value, 2, signed=True) + _error(elpd.error, 2)
        cells.append("reference" if is_reference else value)
        rows.append((_law(comparison, name), cells))
    columns = [*SCORES.values(), "Confidence − accuracy", "ELPD difference"]
    num_points = len(next(iter(comparison.predictions.values())).targets)
    table = _table(f"Scores on {_count(num_points, 'held-out point')}", columns, rows)
    return _prose("section scores", table=table, scores=_figure("scores", comparison))


def _uncertainty(comparison: Comparison) -> str:
    rows = []
    for name, parts in comparison.uncertainty.items():
        share = parts["epistemic"] / parts["total"] if parts["total"] > 0 else 0.0
        cells = [_data(parts[part], 4) for part in ("total", "aleatoric", "epistemic")]
        rows.append((_law(comparison, name), [*cells, f"{100 * share:.1f} %"]))
    columns = ["Total (nats)", "Aleatoric (nats)", "Epistemic (nats)", "Epistemic share"]
    return _prose(
        "section uncertainty",
        table=_table("Mean uncertainty of a prediction", columns, rows),
        uncertainty=_figure("uncertainty", comparison),
        logit_spread=_figure("logit_spread", comparison),
    )


def _distances(comparison: Comparison) -> str:
    rows = []
    for name, row in comparison.distances.items():
        cells = [
            _data(row[d].value, 4) + _error(row[d].error, 4) if d in row else "–"
            for d in ("tv", "variance_ratio", "energy")
        ]
        if name != comparison.reference:
            rows.append((_law(comparison, name), cells))
    if not rows:
        return ""
    columns = ["Total variation", "Variance ratio", "Energy coefficient"]
    caption = f"Distance to {comparison.reference}, on the held-out points"
    return _prose("section distances", table=_table(caption, columns, rows))


def _plane(comparison: Comparison) -> str:
    figure = _figure("surfaces", comparison)
    return figure and _prose("section plane", surfaces=figure)


def _leave_one_out(comparison: Comparison) -> str:
    """Of the laws that know what leaving a point out does."""
    chosen = {
        name: p
        for name, p in comparison.training.items()
        if p.is_posterior or p.leave_one_out is not None
    }
    if not chosen:
        return ""
    try:
        content = _leave_one_out_table(comparison, chosen)
    except Exception as error:
        # Better no table than no report.
        content = f"<p>ArviZ could not compute it: {_e(type(error).__name__)}: {_e(error)}</p>"
    return _prose("section leave-one-out", content=content)


def _leave_one_out_table(comparison: Comparison, chosen: Mapping[str, Predictions]) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what they warn of, high Pareto k, is in the table
        import arviz as az

        estimates = {name: _left_out(p) for name, p in chosen.items()}
        ranking = az.compare(estimates, round_to="none") if len(estimates) > 1 else None
    rows, doubtful = [], []
    for name in ranking.index if ranking is not None else estimates:
        loo = estimates[name]
        cells = [_data(loo.elpd, 1) + _error(loo.se, 1), _data(loo.p, 1)]
        if ranking is not None:
            row = ranking.loc[name]
            difference = _data(row["elpd_diff"], 1, signed=True) + _error(row["dse"], 1)
            cells += ["–" if row["rank"] == 0 else difference, _data(row["weight"], 2)]
        if loo.pareto_k is None:
            cells.append("–")
        else:
            bad = int(np.sum(~(np.asarray(loo.pareto_k) <= loo.good_k)))
            cells.append(f"{bad} of {loo.n_data_points}")
            if bad > 0.05 * loo.n_data_points:
                doubtful.append(name)
        rows.append((_law(comparison, name), cells))
    columns = ["ELPD (nats)", "Effective parameters"]
    columns += ["Difference to first", "Stacking weight"] if ranking is not None else []
    text = _table("Leave-one-out, best first", [*columns, "Pareto k too high"], rows)
    return text + (_prose("warning pareto", names=_e(_listed(doubtful))) if doubtful else "")


def _left_out(p: Predictions) -> "ELPDData":
    """Leave-one-out ELPD, as a Gaussian posterior knows it, or by weighing the posterior's draws."""
    import arviz as az
    import xarray as xr
    from arviz_stats.utils import ELPDDataLOO
    from scipy.special import logsumexp

    num_points, k = len(p.targets), {}
    if p.leave_one_out is not None:
        scores = p.leave_one_out
    else:
        loo = az.loo(to_datatree(p), pointwise=True)
        weights = np.asarray(loo.log_weights.transpose("chain", "draw", "obs_id"))
        weights = weights.reshape(-1, num_points, 1)
        log_probabilities = logsumexp(weights + p.log_probability_draws, axis=0)
        scores = np.asarray(expected_log(p.targets, log_probabilities))
        k = {"pareto_k": loo.pareto_k, "good_k": loo.good_k}
    total = sum_over_points(scores)
    return ELPDDataLOO(
        elpd=total.value,
        se=total.error,
        p=float(p.pointwise_elpd.sum()) - total.value,
        n_samples=len(p.label_draws),
        n_data_points=num_points,
        scale="log",
        warning=False,
        elpd_i=xr.DataArray(scores, dims="obs_id"),
        **{"good_k": None, **k},
    )


def _diagnostics(comparison: Comparison) -> str:
    rows, details = [], []
    for name, p in comparison.predictions.items():
        how = "class probabilities alone" if p.logits is None else p.sampling
        draws = "–" if p.logits is None else str(len(p.logits))
        chains = str(p.num_chains) if kind(p) == "NUTS" else "–"
        seconds = _number(p.seconds, 2) if p.seconds > 0 else "–"
        rows.append((_law(comparison, name), [_Text(_e(how)), draws, chains, seconds]))
        for position, (field, value) in enumerate(p.info.items()):
            known = not np.isnan(value) and not (field in _MIXING and _is_mixing_unknown(p))
            text = f"{value:.4g}".replace("-", "−") if known else "not known"
            shown = f'<data value="{value!r}">{text}</data>' if known else text
            meaning = _pieces().get(f"diagnostic {field}", Template("")).template
            cells = [_Text(_e(field.replace("_", " "))), shown, _Text(meaning)]
            details.append(("" if position else _law(comparison, name), cells))
    columns = ["How it is drawn", "Draws", "Chains", "Fit (seconds)"]
    names = ["Diagnostic", "Value", "Meaning"]
    return _prose(
        "section diagnostics",
        fits=_table("How predictions came about", columns, rows),
        details=_table("Diagnostics of the fits", names, details) if details else "",
    )


def _settings(comparison: Comparison, folder: str | os.PathLike) -> str:
    command = comparison.settings.get("command")
    record = {k: v for k, v in comparison.settings.items() if k != "command"}
    return _prose(
        "section settings",
        command=f"<p>To make this again:</p>\n<pre><code>{_e(command)}</code></pre>"
        if command
        else "",
        folder=_e(repr(os.fspath(folder))),
        record=_definitions({**record, "bootstrap seed": comparison.seed}),
    )


def _definitions(record: Mapping[str, object]) -> str:
    items = []
    for name, value in record.items():
        if isinstance(value, Mapping):
            shown = _definitions(value)
        elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
            shown = _e(", ".join(str(part) for part in value))
        else:
            shown = _e(value)
        items.append(f"<div><dt>{_e(name)}</dt><dd>{shown}</dd></div>")
    return f"<dl>{''.join(items)}</dl>"


# --- pieces of HTML -------------------------------------------------------------------------------


class _Text(str):
    """A cell of words, not of a number."""


def _e(value: object) -> str:
    return escape(str(value))


def _law(comparison: Comparison, name: str) -> str:
    from ntkbayes import figures

    colour = figures.colours(comparison)[name]
    return f'<span class="swatch" style="background:{colour}"></span>{_e(name)}'


def _table(caption: str, columns: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    """Heads and cells are HTML already. A row without a head belongs to the law above it."""
    head = "".join(
        f'<th scope="col"{_class_of(rows[0][1][i])}>{_e(c)}</th>' for i, c in enumerate(columns)
    )
    body = "\n".join(
        "<tr>"
        + (f'<th scope="row">{first}</th>' if first else "<td></td>")
        + "".join(f"<td{_class_of(cell)}>{cell}</td>" for cell in cells)
        + "</tr>"
        for first, cells in rows
    )
    return f"""<div class="scroll" tabindex="0" role="region" aria-label="{_e(caption)}">
<table>
<caption>{_e(caption)}</caption>
<thead><tr><th scope="col">Law</th>{head}</tr></thead>
<tbody>
{body}
</tbody>
</table>
</div>"""


def _class_of(cell: str) -> str:
    return ' class="text"' if isinstance(cell, _Text) else ""


def _figure(name: str, comparison: Comparison) -> str:
    """A figure by its function's name; nothing where the comparison has none."""
    import matplotlib

    from ntkbayes import figures

    try:
        figure = getattr(figures, name)(comparison)
    except ConfigurationError:
        return ""
    svg = io.BytesIO()
    # The salt makes equal comparisons equal files.
    with figures.own_style(), matplotlib.rc_context({"svg.hashsalt": "ntkbayes"}):
        figure.savefig(svg, format="svg", metadata={"Date": None}, dpi=110)
    source = base64.b64encode(svg.getvalue()).decode("ascii")
    width = round(108 * figure.get_figwidth())
    title, caption = _prose(f"title {name}"), _prose(f"caption {name}")
    alternative = f"{title} Laws: {_listed(list(comparison.predictions))}. {caption}"
    return f"""<figure>
<div class="scroll" tabindex="0" role="region" aria-label="{_e(title)}">
<img style="max-width:{width}px" alt="{_e(alternative)}" src="data:image/svg+xml;base64,{source}">
</div>
<figcaption>{caption}</figcaption>
</figure>"""


def _interval(interval: Interval, *, bold: bool = False, signed: bool = False) -> str:
    value = _data(interval.value, 3, signed=signed)
    ends = " – " if not signed else " to "
    lower, upper = (_number(end, 3, signed=signed) for end in (interval.lower, interval.upper))
    shown = f"<strong>{value}</strong>" if bold else value
    return f'{shown}<span class="range">{lower}{ends}{upper}</span>'


def _data(value: float, digits: int, *, signed: bool = False) -> str:
    """A number with its unrounded value."""
    value = float(value)
    return f'<data value="{value!r}">{_number(value, digits, signed=signed)}</data>'


def _error(value: float, digits: int) -> str:
    return f' <span class="error">± {_number(value, digits)}</span>' if 0 < value < np.inf else ""


def _number(value: float, digits: int, *, signed: bool = False) -> str:
    if np.isnan(value):
        return "undefined"
    if np.isinf(value):
        return "∞" if value > 0 else "−∞"
    text = f"{value:{'+' if signed else ''}.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("+-")
    return text.replace("-", "−")


def _value(interval: Interval) -> str:
    value, lower, upper = (_number(v, 3) for v in (interval.value, interval.lower, interval.upper))
    return f"{value} ({lower} to {upper})"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
