"""The sections of the page, each of prose, tables and figures."""

import os
from collections import Counter
from collections.abc import Mapping

import numpy as np
from markupsafe import Markup

from ntkbayes.app import budget
from ntkbayes.app.anatomies import recorded
from ntkbayes.app.report import conventions
from ntkbayes.app.report.chains import MIXING, chain_trouble, is_mixing_unknown
from ntkbayes.app.report.html import (
    Cell,
    Row,
    Words,
    data_of,
    drawn,
    error_of,
    figure_of,
    interval_of,
    law_name,
    prose,
    shown_as,
    static,
    table_of,
)
from ntkbayes.app.report.sentences import confidence_gap, remarks, unfinished
from ntkbayes.app.report.words import (
    count,
    number,
    prior_in_words,
    setting_in_words,
    significant,
    split_in_words,
)
from ntkbayes.app.ridges import sentence
from ntkbayes.comparison import Comparison
from ntkbayes.laws import Sampling
from ntkbayes.predictions import Predictions
from ntkbayes.scores.names import called

SCORES = (
    *("nll", "rps", "brier", "accuracy", "ece", "ece_equal_mass", "ece_classwise"),
    *("crps", "rmse", "mae", "coverage_50", "coverage_90", "width_90", "pit_error"),
)
"""Of the report's table, in order, as far as a comparison has them."""


def lead(comparison: Comparison) -> str:
    first = next(iter(comparison.predictions.values()))
    parts = [count(len(first.targets), "held-out point")]
    if comparison.training:
        trained_on = next(iter(comparison.training.values())).targets
        parts.append(count(len(trained_on), "training point"))
    if isinstance(features := comparison.settings.get("features"), int):
        parts.append(count(features, "feature"))
    parts.append(_targets_in_words(first))
    likelihood = str(comparison.settings.get("likelihood chosen", ""))
    ridge = f"{likelihood} {sentence(comparison.settings)}"
    temperature = conventions.temperature_of(comparison.settings)
    if temperature != 1:
        ridge += f" Temperature {temperature:.6g}: every fit divides the log likelihood by it."
    table = comparison.settings.get("table", "")
    made = f"{split_in_words(comparison.settings)} {prior_in_words(comparison.settings)}"
    lead = f"{ridge} {', '.join(parts)}. {made} Reference: {comparison.reference}. {table}"
    return " ".join(lead.split())


def _targets_in_words(first: Predictions) -> str:
    if first.class_names is None:
        return first.target_facts["targets"]
    names = [str(name) for name in first.class_names]
    shown = ", ".join(names[:6]) + (", …" if len(names) > 6 else "")
    return f"{first.targets.shape[1]} classes" + (f" ({shown})" if names else "")


def laws(comparison: Comparison) -> Markup:
    alike = Counter(p.kind.name for p in comparison.predictions.values())
    items = [
        (law_name(comparison, name), _law_in_words(comparison, name, alike[p.kind.name] > 1))
        for name, p in comparison.predictions.items()
    ]
    return prose("section laws", items=items, reference=comparison.reference)


def _law_in_words(comparison: Comparison, name: str, is_one_of_several: bool) -> str:
    """What a law is; its settings besides, where others of its kind have their own."""
    told = comparison.predictions[name].kind.description
    settings = _settings_of(comparison, name)
    if is_one_of_several and settings and settings.get("type") != "baseline":
        told += f" Here: {setting_in_words(settings)}."
    return told


def _settings_of(comparison: Comparison, name: str) -> Mapping[str, object]:
    """The settings that are a law's own; none if the comparison does not tell them."""
    laws = comparison.settings.get("laws")
    settings = laws.get(name) if isinstance(laws, Mapping) else None
    return settings if isinstance(settings, Mapping) else {}


def in_short(comparison: Comparison) -> Markup:
    trouble = [
        (name, " ".join(problems))
        for name, p in comparison.predictions.items()
        if (problems := chain_trouble(p))
    ]
    told = (unfinished(comparison.settings), budget.sentence(comparison.settings))
    warnings = [prose("warning missing", told=each) for each in told if each]
    if trouble:
        warnings.append(prose("warning chains", items=trouble))
    return prose("section short", items=remarks(comparison), warnings=warnings)


def scores(comparison: Comparison) -> Markup:
    shown = [score for score in SCORES if score in comparison.score_names]
    digits, best = {}, {}
    for score in shown:
        values = [row[score].value for row in comparison.scores.values()]
        best[score] = min(values, key=called(score).badness)
        digits[score] = significant(values) if called(score).is_in_unit_of_target else 3
    rows = []
    for name, row in comparison.scores.items():
        cells: list[Cell] = [
            interval_of(
                row[s],
                bold=len(comparison.scores) > 1 and row[s].value == best[s],
                digits=digits[s],
            )
            for s in shown
        ]
        if comparison.is_of_classes:
            cells.append(interval_of(confidence_gap(comparison, name), signed=True))
        elpd = comparison.elpd_difference[name]
        is_reference = name == comparison.reference
        value = data_of(elpd.value, 2, signed=True) + error_of(elpd.error, 2)
        cells.append("reference" if is_reference else value)
        rows.append((law_name(comparison, name), cells))
    gap = ("Confidence − accuracy",) * comparison.is_of_classes
    columns = [*(called(score).head for score in shown), *gap, "ELPD difference"]
    table = table_of(f"Scores on {count(comparison.num_points, 'held-out point')}", columns, rows)
    told = [*shown, *("gap",) * comparison.is_of_classes, "elpd"]
    ranges = prose("score ranges", intervals=next(iter(row.values())).meaning)
    return prose(
        "section scores",
        table=table,
        legend=[*(static(f"score {name}") for name in told), ranges],
        scores=figure_of("scores", comparison),
    )


def calibration(comparison: Comparison) -> Markup:
    names = ("reliability",) if comparison.is_of_classes else ("pit", "coverage")
    shown = [figure_of(name, comparison) for name in names]
    return prose("section calibration", figures=shown)


def uncertainty(comparison: Comparison) -> Markup:
    of_classes = comparison.is_of_classes
    values = [v for parts in comparison.uncertainty.values() for v in parts.values()]
    digits = 4 if of_classes else significant(values)
    rows = []
    for name, parts in comparison.uncertainty.items():
        share = parts["epistemic"] / parts["total"] if parts["total"] > 0 else 0.0
        cells = [data_of(parts[part], digits) for part in ("total", "aleatoric", "epistemic")]
        rows.append((law_name(comparison, name), [*cells, f"{number(100 * share, 1)} %"]))
    unit = "nats" if of_classes else "squared unit of the target"
    columns = [*(f"{part} ({unit})" for part in ("Total", "Aleatoric", "Epistemic"))]
    caption = "Mean uncertainty" if of_classes else "Mean variance"
    return prose(
        "section uncertainty",
        table=table_of(f"{caption} of a prediction", [*columns, "Epistemic share"], rows),
        uncertainty=figure_of("uncertainty", comparison),
        logit_spread=figure_of("logit_spread", comparison),
    )


_DISTANCES = {
    "tv": "Total variation",
    "variance_ratio": "Variance ratio",
    "energy": "Energy coefficient",
}


def distances(comparison: Comparison) -> str:
    known = {d for row in comparison.distances.values() for d in row}
    shown = {d: head for d, head in _DISTANCES.items() if d in known}
    others = conventions.other_temperatures(comparison) if "variance_ratio" in shown else ()
    rows = []
    for name, row in comparison.distances.items():
        cells = [
            data_of(row[d].value, 4) + error_of(row[d].error, 4) if d in row else "–" for d in shown
        ]
        for temperature in others:
            ratio = row.get("variance_ratio")
            factor = conventions.factor(comparison, name, temperature)
            cells.append("–" if ratio is None else data_of(factor * ratio.value, 4))
        if name != comparison.reference and (comparison.is_of_classes or row):
            rows.append((law_name(comparison, name), cells))
    if not rows:
        return ""
    caption = f"Distance to {comparison.reference}, on the held-out points"
    meanings = [static(f"distance {d}") for d in (*shown, "error")]
    if others:
        ridge = number(conventions.effective_ridge(comparison.settings) or 0.0, 4)
        meanings.append(prose("distance conventions", ridge=ridge))
    heads = [*shown.values(), *(f"{_DISTANCES['variance_ratio']}, T = {t:.4g}" for t in others)]
    table = table_of(caption, heads, rows)
    return prose("section distances", table=table, legend=meanings)


def anatomy(comparison: Comparison) -> str:
    found = recorded(comparison.settings)
    if found is None:
        return ""
    told = [
        found.sentence(name)
        for name, p in comparison.predictions.items()
        if name in found.variances and conventions.is_of_initialisations(p.kind)
    ]
    figure = drawn("anatomy", found, list(found.variances))
    return prose("section anatomy", told=told, figure=figure)


def plane(comparison: Comparison) -> str:
    figure = figure_of("surfaces", comparison)
    return prose("section plane", surfaces=figure) if figure else ""


def diagnostics(comparison: Comparison) -> Markup:
    rows: list[Row] = []
    details: list[Row] = []
    for name, p in comparison.predictions.items():
        alone = "class probabilities" if comparison.is_of_classes else "distributions"
        how = f"{alone} alone" if p.logits is None else p.kind.sampling
        draws = "–" if p.logits is None else str(len(p.logits))
        chains = str(p.num_chains) if p.kind.sampling is Sampling.CHAINS else "–"
        times = [number(t, 2) if t > 0 else "–" for t in (p.seconds, p.compile_seconds)]
        rows.append((law_name(comparison, name), [Words(how), draws, chains, *times]))
        for position, (field, value) in enumerate(p.info.items()):
            known = not np.isnan(value) and not (field in MIXING and is_mixing_unknown(p))
            text = f"{value:.4g}".replace("-", "−") if known else "not known"
            shown = shown_as(value, text) if known else text
            meaning = static(f"diagnostic {field}")
            aim = _settings_of(comparison, name).get("target_accept")
            if field == "mean_accept" and aim is not None:
                meaning += f", here {aim}"
            cells: list[Cell] = [Words(field.replace("_", " ")), shown, Words(meaning)]
            details.append(("" if position else law_name(comparison, name), cells))
    columns = ["How it is drawn", "Draws", "Chains", "Fit (seconds)", "of that, compiling"]
    names = ["Diagnostic", "Value", "Meaning"]
    return prose(
        "section diagnostics",
        fits=table_of("How predictions came about", columns, rows),
        details=table_of("Diagnostics of the fits", names, details) if details else "",
    )


def settings(comparison: Comparison, folder: str | os.PathLike) -> Markup:
    shown = {name: value for name, value in comparison.settings.items() if name != "anatomy"}
    told = {**shown, "bootstrap seed": comparison.seed}
    return reproduction("settings", told, folder=repr(os.fspath(folder)))


def reproduction(piece: str, settings: Mapping[str, object], **values: str) -> Markup:
    """The section of that name: the command that makes a comparison again, and its settings."""
    record = {name: value for name, value in settings.items() if name != "command"}
    return prose(f"section {piece}", command=settings.get("command"), record=record, **values)
