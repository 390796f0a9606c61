"""The report says what the numbers say, of any comparison, in one file that needs nothing else."""

import base64
import dataclasses
import re
import sys
from html import escape
from html.parser import HTMLParser

import matplotlib
import numpy as np
import pytest

import ntkbayes
import ntkbayes as nb
from ntkbayes import figures
from ntkbayes.app import report
from ntkbayes.app.report import left_out, sections
from ntkbayes.app.report.html import figure_of, static
from ntkbayes.app.report.sentences import confidence_gap
from ntkbayes.bridges.arviz import to_datatree
from ntkbayes.comparison import Comparison
from ntkbayes.errors import ConfigurationError
from ntkbayes.laws import Info, Kind, Sampling
from ntkbayes.laws.kind import BASE_RATE, BASELINE
from ntkbayes.predictions import ClassPredictions, Predictions, Surface

NUM_POINTS, NUM_DRAWS = 40, 80
pareto_k = pytest.mark.filterwarnings("ignore:Estimated shape parameter of Pareto:UserWarning")
NUTS_INFO = {
    "num_divergences": 0.0,
    "max_rhat": 1.002,
    "min_bulk_ess": 900.0,
    "min_tail_ess": 800.0,
    "mean_steps": 7.0,
    "mean_accept": 0.85,
    "mean_step_size": 0.4,
}
KINDS = {
    "MAP": (nb.MAP.kind, {"residual": 1e-12, "num_iterations": 5.0}),
    "random init": (nb.RandomInit.kind, {"worst_residual": 1e-9}),
    "first order": (nb.FirstOrder.kind, {"residual": 1e-12, "exact": 0.0}),
    "Laplace": (nb.Laplace.kind, {"log_evidence": -12.5}),
    "pruned Laplace": (nb.PrunedLaplace.kind, {"excess_bound": 0.1, "sampled_excess": 0.01}),
    "NUTS": (nb.NUTS.kind, NUTS_INFO),
    "baseline": (BASELINE, {}),
}


def predictions(
    kind: str,
    name: str | None = None,
    *,
    scale: float = 1.0,
    spread: float = 1.0,
    num_classes: int = 2,
    class_names: tuple = (),
    num_points: int = NUM_POINTS,
    probabilities: np.ndarray | None = None,
    seed: int = 0,
    **info: float,
) -> Predictions:
    """Logits around a truth that is calibrated at scale 1."""
    rng = np.random.default_rng(seed)
    own_kind, own = KINDS[kind]
    outputs = 1 if num_classes == 2 else num_classes
    centre = 2 * rng.normal(size=(num_points, outputs))
    truth = np.concatenate([np.zeros_like(centre), centre], axis=1) if outputs == 1 else centre
    chances = np.exp(truth) / np.exp(truth).sum(axis=1, keepdims=True)
    labels = np.array([rng.choice(num_classes, p=chance) for chance in chances])
    draws = 1 if own_kind.sampling is Sampling.POINT else NUM_DRAWS
    noise = spread * rng.normal(size=(draws, num_points, outputs)) if draws > 1 else 0.0
    logits = np.broadcast_to(scale * centre, (draws, num_points, outputs)) + noise
    is_baseline = kind == "baseline"
    return ClassPredictions(
        name=name or kind,
        targets=np.eye(num_classes)[labels],
        class_names=class_names or tuple(range(num_classes)),
        logits=None if is_baseline else logits,
        mean=None if is_baseline else logits.mean(axis=0),
        variance=None if is_baseline else logits.var(axis=0),
        point_probabilities=(chances if probabilities is None else probabilities)
        if is_baseline
        else None,
        label_draws=np.tile(labels, (NUM_DRAWS if is_baseline else draws, 1)),
        kind=own_kind,
        num_chains=4 if kind == "NUTS" else 1,
        info={**own, **info},
    )


def comparison(*laws: Predictions, reference: str | None = None, **fields: object) -> Comparison:
    """A comparison whose last law is the reference."""
    return Comparison({p.name: p for p in laws}, reference or laws[-1].name, **fields)


def surface(num_classes: int, *, certain: bool = False) -> Surface:
    rng = np.random.default_rng(1)
    p = rng.dirichlet(np.ones(num_classes), size=(6, 5))
    if certain:
        p = np.broadcast_to(np.eye(num_classes)[0], p.shape)
    epistemic = np.zeros((6, 5)) if certain else rng.uniform(0, 0.3, (6, 5))
    features, labels = rng.normal(size=(9, 2)), np.arange(9) % num_classes
    return Surface(np.linspace(-1, 1, 5), np.linspace(-2, 2, 6), p, epistemic, features, labels)


METHODS = {
    kind.name: kind
    for one in (getattr(nb, name) for name in nb.__all__)
    if isinstance(one, type) and isinstance(kind := getattr(one, "kind", None), Kind)
}


def test_every_kind_of_law_is_described_in_its_own_words():
    laws = [
        dataclasses.replace(predictions("random init", name), kind=kind)
        for name, kind in METHODS.items()
    ]
    page = report.page(comparison(*laws), "runs")
    for kind in METHODS.values():
        assert escape(kind.description) in page


def test_a_finite_ensemble_and_a_hierarchical_posterior_are_told_as_what_they_are():
    laws = [
        dataclasses.replace(predictions("random init", "networks"), kind=nb.FiniteEnsemble.kind),
        dataclasses.replace(predictions("NUTS", "groups"), kind=nb.FullBayes.kind),
    ]
    page = report.page(comparison(*laws), "runs")
    assert "real networks of finite width, each trained by gradient descent" in page
    assert "in which hyperparameters have priors" in page
    assert "of the variance of the hierarchical posterior" in page
    assert "exact posterior under the prior GP(m, Θ/ridge)" not in page


@pytest.fixture(scope="module")
def everything() -> Comparison:
    """All kinds of laws, with surfaces, training predictions and settings."""
    laws = [
        predictions("MAP"),
        predictions("random init", spread=0.1),
        predictions("first order", spread=0.1),
        predictions("Laplace", scale=0.9),
        predictions("baseline", "logistic regression"),
        predictions("NUTS"),
    ]
    bayes = {p.name: p for p in laws if p.name in ("MAP", "Laplace", "NUTS")}
    left_out = bayes["Laplace"].pointwise_elpd - 0.1
    training = {
        "MAP": bayes["MAP"],
        "Laplace": dataclasses.replace(bayes["Laplace"], leave_one_out=left_out),
        "NUTS": dataclasses.replace(bayes["NUTS"], is_posterior=True),
    }
    return comparison(
        *laws,
        training={n: dataclasses.replace(p, held_out=False) for n, p in training.items()},
        surfaces={n: surface(2) for n in bayes},
        settings={
            "data": "moons",
            "features": 2,
            "versions": {"ntkbayes": "0.1.0"},
            "methods": {"NUTS": {"num_chains": 4}},
            "command": "ntkbayes compare --data moons",
        },
    )


@pytest.fixture(scope="module")
def html(everything: Comparison) -> str:
    return report.page(everything, "runs/moons")


class Page(HTMLParser):
    """What tests look for: rows of tables by head, tags that stay open, links, headings."""

    VOID = ("meta", "img", "br", "link")

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.headings: list[str] = []
        self.images: list[dict] = []
        self.values: list[float] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        found = dict(attrs)
        self.links += [found[name] for name in ("src", "href") if name in found]
        if tag == "img":
            self.images.append(found)
        if tag == "data":
            self.values.append(float(found["value"]))
        if tag == "th":
            assert found.get("scope") in ("col", "row")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("h1", "h2"):
            self.headings.append(data)
        if "style" not in self.open:
            self.text += data


# --- the page -------------------------------------------------------------------------------------


def test_page_holds_every_number_of_the_table(everything, html):
    values = np.array(Page(html).values)
    table = everything.table()
    # What the page shows with its unrounded value; ends of intervals are rounded text.
    shown = [score for score in sections.SCORES if score in everything.score_names]
    shown += ["tv", "variance_ratio", "energy", "elpd_difference"]
    shown += ["total_uncertainty", "aleatoric_uncertainty", "epistemic_uncertainty"]
    for column in shown:
        for law, value in table[column].drop(index=everything.reference).dropna().items():
            assert np.isclose(values, value, rtol=1e-12, atol=0).any(), (column, law)
    for end in ("nll_lower", "nll_upper"):
        assert all(f"{value:.3f}" in html for value in table[end])


def test_page_is_whole_and_self_contained(html):
    page = Page(html)
    assert page.open == []
    assert page.links
    assert all(link.startswith("data:image/svg+xml;base64,") for link in page.links)
    for image in page.images:
        assert len(image["alt"]) > 50
        assert base64.b64decode(image["src"].split(",")[1]).startswith(b"<?xml")
    assert "$" not in page.text
    assert not re.search(r"<script|@import|url\(", html)
    assert len(html) < 2e6


def test_page_has_every_section(html):
    assert Page(html).headings == [
        *("moons", "In short", "What is compared", "Scores", "Calibration", "Uncertainty"),
        *("Distances", "Over the plane", "Leave-one-out at the training points", "Diagnostics"),
        "Settings and how to reproduce",
    ]


def test_page_says_how_to_reproduce(html):
    text = Page(html).text
    assert "ntkbayes compare --data moons" in text
    assert "nb.load('runs/moons')" in text


def test_equal_comparisons_have_equal_pages(everything, html):
    assert report.page(dataclasses.replace(everything), "runs/moons") == html


def test_a_page_is_the_same_in_every_style_of_the_user(everything, html):
    style = {
        "text.usetex": True,
        "path.sketch": (1, 100, 2),
        "font.size": 40,
        "axes.unicode_minus": False,
        "figure.facecolor": "black",
        "savefig.bbox": "tight",
        "savefig.facecolor": "red",
        "svg.fonttype": "none",
    }
    with matplotlib.rc_context(style):
        assert report.page(everything, "runs/moons") == html


def test_a_matplotlib_that_does_not_start_is_an_error_before_any_fit(monkeypatch):
    report.require_drawing()
    monkeypatch.delattr(ntkbayes, "figures")
    monkeypatch.setitem(sys.modules, "ntkbayes.figures", None)
    with pytest.raises(ConfigurationError, match=r"does not start: .*; check MPLBACKEND"):
        report.require_drawing()


def test_write_leaves_one_page(tmp_path):
    path = report.write(comparison(predictions("NUTS")), tmp_path / "run")
    assert path == tmp_path / "run" / "report.html"
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_baselines_have_no_settings_to_tell():
    both = [predictions("baseline", name) for name in ("first", "second")]
    own = {p.name: {"type": "baseline"} for p in both}
    assert "Here:" not in report.page(comparison(*both, settings={"laws": own}), "run")


def test_names_are_escaped():
    nasty = "<img src='x'>&\"$a_1$"
    laws = [
        predictions("Laplace", nasty, class_names=("<b>", "a & b $x$")),
        predictions("NUTS", class_names=("<b>", "a & b $x$")),
    ]
    page = report.page(
        comparison(*laws, settings={"data": "<script>", nasty: [nasty], "command": nasty}), nasty
    )
    parsed = Page(page)
    assert parsed.open == []
    assert "<script" not in page
    assert "<b>" not in page
    assert "<img src='x'>" not in page
    assert nasty in parsed.text
    assert "a & b $x$" in parsed.text


@pytest.mark.parametrize("info_class", Info.__subclasses__(), ids=lambda c: c.__name__)
def test_every_diagnostic_is_explained(info_class):
    for field in dataclasses.fields(info_class):
        info = {field.name: 1.0}
        law = dataclasses.replace(predictions("MAP"), info=info)
        meaning = static(f"diagnostic {field.name}")
        assert meaning
        assert meaning in sections.diagnostics(comparison(law))


# --- degenerate comparisons -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["MAP", "random init", "NUTS", "baseline"])
def test_a_single_law_has_a_report(kind):
    page = Page(report.page(comparison(predictions(kind)), "run"))
    assert page.open == []
    assert "Distances" not in page.headings
    assert "Over the plane" not in page.headings
    assert "Leave-one-out at the training points" not in page.headings
    assert "nan" not in page.text


def test_a_point_as_reference_has_a_report():
    found = comparison(predictions("random init"), predictions("MAP"))
    text = Page(report.page(found, "run")).text
    assert "∞" in text
    assert "Spread." not in text


def test_a_baseline_as_reference_has_a_report():
    found = comparison(predictions("Laplace"), predictions("random init"), predictions("baseline"))
    assert Page(report.page(found, "run")).open == []


def test_infinite_scores_are_said_to_be_infinite():
    law = predictions("NUTS")
    wrong = 1 - law.targets
    bad = predictions("baseline", "broken", probabilities=wrong)
    text = Page(report.page(comparison(bad, law), "run")).text
    assert "∞" in text
    assert "significantly better than broken" in text
    assert "All negative log likelihoods are infinite" in report.remarks(comparison(bad))[0].text


def test_many_classes_and_long_names():
    names = tuple(f"a rather long name of class {k}" for k in range(12))
    law = predictions("NUTS", "law " * 30, num_classes=12, class_names=names)
    plane = {law.name: surface(12)}
    page = Page(report.page(comparison(law, surfaces=plane), "run"))
    assert "12 classes" in page.text
    assert "class 11" not in page.text


def test_names_in_another_script_are_no_trouble():
    found = comparison(predictions("NUTS", "寧波"))
    assert "寧波" in figure_of("scores", found)


def test_one_test_point_has_a_report():
    laws = [predictions(kind, num_points=1) for kind in ("random init", "NUTS")]
    assert Page(report.page(comparison(*laws), "run")).open == []


def test_failing_leave_one_out_is_reported_in_words(everything, monkeypatch):
    import arviz_stats

    def fail(*_, **__):
        raise RuntimeError("no <luck>")

    monkeypatch.setattr(arviz_stats, "loo", fail)
    section = left_out.leave_one_out(everything)
    assert "ArviZ could not compute it: RuntimeError: no &lt;luck&gt;" in section


def test_leave_one_out_is_of_posteriors_alone(everything):
    section = left_out.leave_one_out(everything)
    assert "Laplace" in section
    assert "NUTS" in section
    assert "MAP" not in section
    assert f"of {NUM_POINTS}" in section


def test_leave_one_out_of_a_gaussian_posterior_is_its_own_and_has_no_pareto_k(everything):
    known = everything.training["Laplace"]
    found = left_out._left_out(known)
    assert found.elpd == pytest.approx(known.leave_one_out.sum())
    assert found.p == pytest.approx(known.pointwise_elpd.sum() - known.leave_one_out.sum())
    assert found.pareto_k is None


@pareto_k
@pytest.mark.parametrize("num_classes", [2, 3])
def test_leave_one_out_of_the_posterior_is_arvizs(num_classes):
    import arviz as az

    p = dataclasses.replace(
        predictions("NUTS", num_classes=num_classes), held_out=False, is_posterior=True
    )
    found, truth = left_out._left_out(p), az.loo(to_datatree(p), pointwise=True)
    np.testing.assert_allclose(found.elpd_i, truth.elpd_i, atol=1e-12)
    np.testing.assert_allclose([found.elpd, found.se, found.p], [truth.elpd, truth.se, truth.p])
    np.testing.assert_array_equal(found.pareto_k, truth.pareto_k)


@pareto_k
@pytest.mark.parametrize("num_classes", [2, 3])
def test_leave_one_out_of_soft_targets_is_minus_the_cross_entropy(num_classes):
    import arviz as az

    soft = np.random.default_rng(0).dirichlet(np.ones(num_classes), NUM_POINTS)
    p = predictions("NUTS", num_classes=num_classes)
    p = dataclasses.replace(p, targets=soft, held_out=False, is_posterior=True)
    found, theirs = left_out._left_out(p), az.loo(to_datatree(p), pointwise=True)
    log_weights = np.array(theirs.log_weights.transpose("chain", "draw", "obs_id"))
    weights = np.exp(log_weights).reshape(NUM_DRAWS, NUM_POINTS, 1)
    mean = np.sum(weights * p.probability_draws, axis=0)
    np.testing.assert_allclose(found.elpd_i, np.sum(soft * np.log(mean), axis=1), atol=1e-12)
    assert abs(found.elpd - theirs.elpd) > 0.1


# --- in short -------------------------------------------------------------------------------------


def said(found: Comparison, topic: str) -> str:
    return " ".join(text for about, text in report.remarks(found) if about == topic)


def base_rate(found: Predictions) -> Predictions:
    frequencies = np.broadcast_to(found.targets.mean(axis=0), found.targets.shape)
    base = predictions("baseline", "base rate", probabilities=frequencies)
    return dataclasses.replace(base, kind=BASE_RATE)


def test_laws_that_lose_to_the_base_rate_beyond_the_paired_interval_are_named():
    good, bad = predictions("MAP"), predictions("Laplace", scale=-3.0, spread=0.1)
    found = comparison(good, bad, base_rate(good))
    text = said(found, "Base rate")
    excess = found.score_differences("base rate")["Laplace"]["nll"]
    assert excess.lower > 0
    assert f"Laplace by {excess.value:.3f} ({excess.lower:.3f} to {excess.upper:.3f})" in text
    assert "MAP" not in text


def test_no_law_that_might_be_level_with_the_base_rate_is_said_to_lose():
    good = predictions("MAP")
    level = predictions("Laplace", scale=0.0, spread=0.01)
    assert said(comparison(good, level, base_rate(good)), "Base rate") == ""
    assert said(comparison(good, predictions("baseline")), "Base rate") == ""


def test_the_first_line_is_the_ridge_and_how_it_was_chosen():
    record = {"value": 8.75, "rule": "evidence", "reason": "which <maximises> it", "scores": {}}
    told = report.page(comparison(predictions("MAP"), settings={"ridge": record}), "run")
    assert '<p class="lead">Ridge 8.75, which &lt;maximises&gt; it. 40 held-out points' in told
    for settings in ({}, {"ridge": 0.5}, {"ridge": {"value": 1.0}}):
        page = report.page(comparison(predictions("MAP"), settings=settings), "run")
        assert '<p class="lead">40 held-out points' in page


@pytest.mark.parametrize(
    ("scale", "sign", "words"),
    [(8.0, 1, "Over-confident"), (0.1, -1, "Under-confident"), (1.0, 0, "Well calibrated")],
)
def test_confidence_has_the_sign_of_the_gap(scale, sign, words):
    found = comparison(predictions("MAP", scale=scale, num_points=300, seed=1))
    gap = confidence_gap(found, "MAP")
    assert said(found, "Calibration").startswith(words)
    assert gap.lower > 0 if sign > 0 else gap.upper < 0 if sign < 0 else gap.lower < 0 < gap.upper


@pytest.mark.parametrize(
    ("spread", "words"),
    [
        *((0.1, "far more confident than"), (0.6, "is more confident than")),
        *((1.0, "about as confident as"), (2.0, "less confident than")),
    ],
)
def test_spread_of_random_init_is_told(spread, words):
    found = comparison(predictions("random init", spread=spread), predictions("NUTS"))
    text = said(found, "Spread")
    assert f"{words} the exact posterior" in text
    assert f"{found.distances['random init']['variance_ratio'].value:.2g} of the variance" in text


@pytest.mark.parametrize(
    ("ridge", "temperature", "factors"),
    [
        (0.1, 1.0, {0.1: 10.0}),  # at T = ridge the posterior has a tenth of the covariance
        (1.0, 0.1, {1.0: 0.1}),
        (0.5, 0.2, {1.0: 0.2, 0.1: 2.0}),
        (1.0, 1.0, {}),
    ],
)
def test_both_conventions_of_temperature_are_told(ridge, temperature, factors):
    laws = [predictions("random init", spread=0.1), predictions("Laplace"), predictions("NUTS")]
    settings = {"ridge": {"value": ridge, "reason": "as given"}, "temperature": temperature}
    found = comparison(*laws, settings=settings)
    ratios = {name: row["variance_ratio"].value for name, row in found.distances.items()}
    told, table = said(found, "Spread"), sections.distances(found)
    assert ("the same ratio, had the posterior" in table) == bool(factors)
    for other, factor in factors.items():
        assert f"Variance ratio, T = {other:.4g}" in table
        assert f'value="{factor * ratios["random init"]!r}"' in table
        assert f"at temperature {other:.3g}" in told
        assert f"the ratio is {factor * ratios['random init']:.2g} to first order" in told
    assert table.count(f'value="{ratios["Laplace"]!r}"') == 1 + len(factors)
    assert ("the exact posterior at temperature" in told) == (temperature != 1)


def test_without_a_ridge_or_a_law_of_bayes_there_is_one_convention():
    laws = [predictions("random init", spread=0.1), predictions("NUTS")]
    assert "T =" not in sections.distances(comparison(*laws))
    of_ensemble = comparison(*laws[::-1], settings={"ridge": {"value": 0.1, "reason": "as given"}})
    assert "T =" not in sections.distances(of_ensemble)


def test_best_law_is_named_with_what_is_not_told_apart_from_it():
    sharp = predictions("NUTS", num_points=400, spread=0.1)
    twin = dataclasses.replace(sharp, name="twin")
    wild = predictions("MAP", scale=-3.0, num_points=400)
    text = said(comparison(wild, twin, sharp), "Best prediction")
    assert text.startswith("twin has the lowest negative log likelihood")
    assert "not significant at this number" in text
    assert "significantly better than MAP" in text
    assert "do not tell it apart from NUTS" in text


def test_laplace_and_nuts_are_held_together():
    near = comparison(predictions("Laplace"), predictions("NUTS"))
    far = comparison(predictions("Laplace", scale=-1.0), predictions("NUTS"))
    topic = "Laplace against the exact posterior"
    assert "is close to the posterior" in said(near, topic)
    assert "visibly not the posterior. The spread agrees" in said(far, topic)
    swapped = comparison(predictions("NUTS"), predictions("Laplace"))
    assert said(swapped, topic).startswith("Class probabilities of Laplace and NUTS")


@pytest.mark.parametrize(
    ("info", "words"),
    [
        ({"num_divergences": 3.0}, "3 transitions diverged"),
        ({"max_rhat": 1.2}, "R-hat is 1.200, above 1.05"),
        ({"max_rhat": 1.03}, "R-hat is 1.030, above 1.01"),
        (
            {"min_bulk_ess": 120.0},
            "effective sample size in bulk is 120, below 400 (100 per chain)",
        ),
        ({"min_tail_ess": 90.0}, "effective sample size in the tails is 90, below 400"),
    ],
)
def test_bad_chains_raise_a_warning(info, words):
    found = comparison(predictions("NUTS", **info))
    section = sections.in_short(found)
    assert words in section
    assert 'class="warning" role="alert"' in section
    assert "see the warning" in said(found, "Markov chains")


@pytest.mark.parametrize(
    "info",
    [
        {"max_rhat": float("nan")},
        {"max_rhat": float("inf")},
        {"max_rhat": 0.5},  # none has less than √½
        {"min_bulk_ess": float("nan")},
        {"min_tail_ess": -3.0},
    ],
)
def test_a_diagnostic_outside_its_range_is_not_reported(info):
    found = comparison(predictions("NUTS", **info))
    assert "not known: a logit was moved by no chain, or is not finite" in sections.in_short(found)
    assert said(found, "Markov chains") == "NUTS has 0 divergences: see the warning below."
    section = sections.diagnostics(found)
    assert section.count("not known") == 3
    (field,) = info
    assert f'<data value="{info[field]!r}">' not in section


def test_why_one_chain_has_no_diagnostics_is_told():
    alone = dataclasses.replace(predictions("NUTS", max_rhat=float("nan")), num_chains=1)
    assert "not known: there is one chain" in sections.in_short(comparison(alone))


def test_good_chains_raise_no_warning(html):
    assert 'role="alert"' not in html
    assert "the chains look converged" in html


# --- figures --------------------------------------------------------------------------------------


def test_reliability_has_a_panel_a_law(everything):
    axes = figures.reliability(everything).axes
    assert [ax.get_title(loc="left") for ax in axes] == list(everything.predictions)
    assert axes[0].get_ylabel()
    assert axes[-1].get_xlabel()


def test_scores_and_uncertainty_have_a_row_a_law(everything):
    for figure in (figures.scores(everything), figures.uncertainty(everything)):
        labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
        assert labels == list(everything.predictions)
        assert all(ax.get_xlabel() for ax in figure.axes)


def test_logit_spread_has_a_panel_for_each_law_with_spread(everything):
    axes = figures.logit_spread(everything).axes
    titles = [ax.get_title(loc="left") for ax in axes]
    assert titles == ["random init", "first order", "Laplace"]
    assert axes[0].get_ylabel()
    assert all(ax.get_xlabel() for ax in axes)


@pytest.mark.parametrize("num_classes", [2, 3])
@pytest.mark.parametrize("certain", [False, True])
def test_surfaces_have_two_panels_a_law(num_classes, certain):
    laws = [predictions(k, num_classes=num_classes) for k in ("MAP", "random init", "NUTS")]
    planes = {p.name: surface(num_classes, certain=certain) for p in laws}
    figure = figures.surfaces(comparison(*laws, surfaces=planes))
    panels = [ax for ax in figure.axes if ax.images]
    assert len(panels) == 6
    bars = [ax for ax in figure.axes if not ax.images]
    assert "nats" in bars[-1].get_ylabel()
    assert figure.axes[0].get_ylabel()


def test_figures_that_have_nothing_to_show_say_so():
    alone = comparison(predictions("MAP"))
    with pytest.raises(ConfigurationError, match="two features"):
        figures.surfaces(alone)
    with pytest.raises(ConfigurationError, match="at least two laws"):
        figures.logit_spread(alone)


def test_colours_tell_laws_apart(everything):
    found = figures.colours(everything)
    assert len(set(found.values())) == len(found)
    assert found["NUTS"] == figures.REFERENCE_COLOUR


def test_figures_leave_matplotlib_as_it_was(everything):
    import matplotlib

    before = dict(matplotlib.rcParams)
    figures.scores(everything)
    assert dict(matplotlib.rcParams) == before


def test_the_first_lines_name_network_and_split():
    network = {"type": "MLP", "activation": {"type": "GELU"}, "depth": 2, "width": 512}
    prior = {"type": "NTKPrior", "kernel": {"type": "MLPKernel", "network": network}}
    of_seed = {"prior": prior, "test share": 0.25, "seed": 3, "test data digest": None}
    page = report.page(comparison(predictions("MAP"), settings=of_seed), "run")
    lead = page[page.index('<p class="lead">') : page.index("<main>")]
    assert "Held out: 25 % of the points, chosen by seed 3." in lead
    assert "Network: MLP(GELU(), depth=2), of infinite width." in lead
    given = {**of_seed, "test data digest": "ab", "prior": {"kernel": {"type": "FunctionKernel"}}}
    page = report.page(comparison(predictions("MAP"), settings=given), "run")
    assert "The held-out points were given. Kernel: FunctionKernel()." in page


def test_conclusions_come_before_what_the_laws_are():
    page = report.page(comparison(predictions("MAP")), "run")
    assert page.index("<h2>In short</h2>") < page.index("<h2>What is compared</h2>")


def test_laws_of_one_kind_are_told_apart_by_their_settings():
    laws = {
        "few": {"type": "RandomInit", "num_inits": 10},
        "many": {"type": "RandomInit", "num_inits": 1000},
        "MAP": {"type": "MAP", "tolerance": 1e-6},
    }
    made = (predictions("random init", name) for name in ("few", "many"))
    page = report.page(comparison(*made, predictions("MAP"), settings={"laws": laws}), "run")
    assert "Here: RandomInit(num_inits=10)." in page
    assert "Here: RandomInit(num_inits=1000)." in page
    assert "Here: MAP" not in page


def test_a_difference_that_hardly_matters_is_said_to():
    good = predictions("MAP", num_points=4000)
    near = predictions("first order", num_points=4000, scale=0.8, spread=0.01)
    found = comparison(good, near, predictions("baseline", num_points=4000))
    best = min(found.scores, key=lambda name: found.scores[name]["nll"].value)
    other = "first order"
    gap = found.score_differences(best)[other]["nll"]
    assert gap.lower > 0
    assert gap.upper < 0.01
    assert f"Of these {other} lose less than 0.01 nats per point" in said(found, "Best prediction")


def test_the_acceptance_aimed_at_is_the_samplers_own():
    laws = {"NUTS": {"type": "NUTS", "target_accept": 0.95}}
    page = report.page(comparison(predictions("NUTS"), settings={"laws": laws}), "run")
    assert "which warm-up steers to the target acceptance, here 0.95" in page


@pytest.mark.parametrize(("num_points", "bins"), [(9, 5), (60, 6), (149, 14), (10_000, 15)])
def test_bins_of_the_diagram_hold_ten_points_each(num_points, bins):
    assert nb.calibration.EqualWidth.suited(num_points).num_bins == bins
