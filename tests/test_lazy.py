"""The lazy-regime laboratory: what is measured, what is concluded, and what a user may get wrong."""

import json
import re
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from jaxtyping import Array, Float
from scipy import stats

import ntkbayes as nb
from ntkbayes import datasets
from ntkbayes.errors import (
    ConfigurationError,
    DataError,
    DivergenceError,
    KernelScaleWarning,
    StorageError,
    UnknownNameError,
)
from ntkbayes.lazy import (
    Brier,
    Certificate,
    Finding,
    PowerLaw,
    Regime,
    Trajectory,
    certify,
    judge,
    plots,
)
from ntkbayes.lazy import widths as study_module
from ntkbayes.lazy.measure import follow, initialise, recorded_steps, require_fitting
from ntkbayes.lazy.points import Points
from ntkbayes.lazy.widths import LazyStudy, four_regimes
from ntkbayes.likelihood import Categorical, LogConcave, Normal, Ordinal, Poisson
from ntkbayes.networks import Network, Params
from ntkbayes.training.networks import Trainer

KEY = jax.random.key(0)
STEP = 0.02


class Linear(Network):
    """f(x; W) = x W: its own linearisation."""

    def init(self, key: Array, features: Float[Array, "n d"]) -> Params:
        return jax.random.normal(key, (features.shape[1], 3), features.dtype)

    def apply(self, params: Params, features: Float[Array, "n d"]) -> Float[Array, "n outputs"]:
        return features @ params


class Tiny(Network):
    """One hidden layer without biases: little to compile."""

    width: int = eqx.field(static=True)
    num_outputs: int = eqx.field(static=True, default=3)

    def init(self, key: Array, features: Float[Array, "n d"]) -> Params:
        shape = (features.shape[1] + self.num_outputs, self.width)
        return jax.random.normal(key, shape, features.dtype)

    def apply(self, params: Params, features: Float[Array, "n d"]) -> Float[Array, "n outputs"]:
        d = features.shape[1]
        hidden = jax.nn.relu(features @ params[:d] / jnp.sqrt(d))
        return hidden @ params[d:].T * 1.5 / jnp.sqrt(self.width)


def flowers(size: int) -> nb.Dataset:
    return datasets.load("iris").subset(KEY, size)


@pytest.fixture(scope="module")
def points() -> Points:
    """12 training and 4 test points of three classes, as many as in the study and the certificates."""
    train, test = flowers(16).split(KEY)
    return Points.build(train, test, Categorical(), num_probes=4, key=KEY)


# --- what is measured -----------------------------------------------------------------------------
#
# The oracle: `Tiny` and its Jacobian by hand, in numpy and float64.


def by_hand(theta: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logits (n, C) and Jacobian (n, C, p) of `Tiny` at θ of shape (d + C, width)."""
    d, width = x.shape[1], theta.shape[1]
    first, readout = theta[:d], theta[d:]
    before = x @ first / np.sqrt(d)
    scale = 1.5 / np.sqrt(width)
    logits = scale * np.maximum(before, 0) @ readout.T
    jacobian = np.zeros((len(x), len(readout), *theta.shape))
    signal = scale * readout[None] * (before > 0)[:, None]
    jacobian[:, :, :d] = signal[:, :, None] * x[:, None, :, None] / np.sqrt(d)
    for c in range(len(readout)):
        jacobian[:, c, d + c] = scale * np.maximum(before, 0)
    return logits, jacobian.reshape(len(x), len(readout), -1)


def softmax(logits: np.ndarray) -> np.ndarray:
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)


def norm(array: np.ndarray) -> float:
    return float(np.sqrt((array**2).sum()))


def trained_by_hand(theta0, points, ridge, num_steps, *, anchor, shifted):
    """θ of the network and the move θ − θ0 of its linearisation, after plain gradient descent."""
    x, y = (np.asarray(a, float) for a in (points.train, points.targets))
    f0, j0 = by_hand(theta0, x)
    theta, move, less = theta0.copy(), np.zeros(theta0.size), f0 if shifted else 0.0
    towards = theta0 if anchor == "init" else np.zeros_like(theta0)
    for _ in range(num_steps):
        logits, jacobian = by_hand(theta, x)
        slope = np.einsum("icp,ic->p", jacobian, softmax(logits - less) - y).reshape(theta.shape)
        theta = theta - STEP * (slope + ridge * (theta - towards))
        lazy = np.einsum("icp,ic->p", j0, softmax(f0 + j0 @ move - less) - y)
        move = move - STEP * (lazy + ridge * (move + (theta0 - towards).ravel()))
    return theta, move


@pytest.mark.parametrize(("anchor", "shifted"), [("init", False), ("zero", True)])
def test_every_series_is_its_definition(points, anchor, shifted):
    ridge = 0.3
    trainer = Trainer(Tiny(16), Categorical(), ridge=ridge, step_size=STEP, anchor=anchor)
    params = initialise(Tiny(16), points, KEY, 2)
    found = follow(trainer, params, points, steps=(20, 60), shifted=shifted)
    np.testing.assert_allclose(found.time, [20 * STEP, 60 * STEP])
    x = {where: np.asarray(getattr(points, where), float) for where in ("train", "test", "probes")}
    for k in range(2):
        theta0 = np.asarray(params[k], float)
        how = {"anchor": anchor, "shifted": shifted}
        theta, move = trained_by_hand(theta0, points, ridge, 60, **how)

        def drift(probes, theta=theta, theta0=theta0):
            before, after = (by_hand(t, probes)[1] for t in (theta0, theta))
            ntk0, ntk = (np.einsum("icp,jdp->ijcd", j, j) for j in (before, after))
            return norm(ntk - ntk0) / norm(ntk0)

        less = {where: shifted * by_hand(theta0, x[where])[0] for where in ("train", "test")}
        logits = by_hand(theta, x["train"])[0] - less["train"]
        fit = -(np.asarray(points.targets) * np.log(softmax(logits))).sum()
        moved = norm(theta - theta0)
        expected = {
            "drift_train": drift(x["probes"][:4]),
            "drift_test": drift(x["probes"][4:]),
            "distance": moved,
            "relative_distance": moved / norm(theta0),
            "loss": fit + ridge / 2 * (moved if anchor == "init" else norm(theta)) ** 2,
            "largest_logit": np.abs(logits - logits.mean(axis=1, keepdims=True)).max(),
        }
        for where in ("train", "test"):
            network = by_hand(theta, x[where])[0] - less[where]
            f0, jacobian = by_hand(theta0, x[where])
            linear = f0 + jacobian @ move - less[where]
            gap = (network - linear) - (network - linear).mean(axis=1, keepdims=True)
            apart = np.abs(softmax(network) - softmax(linear)).sum(axis=1) / 2
            expected |= {
                f"gap_{where}": norm(gap) / np.sqrt(gap.size),
                f"worst_gap_{where}": np.abs(gap).max(),
                f"variation_{where}": apart.mean(),
                f"worst_variation_{where}": apart.max(),
            }
        assert set(expected) == set(Trajectory.series_names())
        for name, value in expected.items():
            assert getattr(found, name)[k, -1] == pytest.approx(value, rel=2e-3), name


def test_linear_network_neither_drifts_nor_leaves_its_linearisation(points):
    params = initialise(Linear(), points, KEY, 2)
    trainer = Trainer(Linear(), Categorical(), ridge=0.0, step_size=STEP)
    found = follow(trainer, params, points, steps=(1, 40))
    assert np.max(found.worst_gap_test) < 1e-5
    assert np.max(found.drift_train) == 0
    assert np.all(found.distance[:, 1] > 0.1)


def test_only_plain_full_batch_steps_can_be_followed(points):
    params = initialise(Linear(), points, KEY, 2)
    trainer = Trainer(Linear(), Categorical(), ridge=0.0, step_size=STEP, batch_size=3)
    with pytest.raises(ConfigurationError, match="leave out optimizer and batch_size"):
        follow(trainer, params, points, steps=(1,))


def test_network_with_too_many_outputs_is_refused(points):
    params = initialise(Tiny(16), points, KEY, 2)
    two_classes = eqx.tree_at(lambda tree: tree.targets, points, points.targets[:, :2])
    with pytest.raises(ConfigurationError, match=r"has 3 output\(s\), the targets need 2"):
        require_fitting(Tiny(16), params, two_classes)


def test_recorded_steps_end_with_the_last_and_hold_a_tenth_of_it():
    assert recorded_steps(1000, per_decade=2, decades=2) == (10, 32, 100, 316, 1000)
    assert recorded_steps(10) == (1, 2, 3, 6, 10)
    with pytest.raises(ConfigurationError, match="at least 10; got 9"):
        recorded_steps(9)


# --- what is concluded ----------------------------------------------------------------------------


def synthetic(
    drift: list[float], logit: list[float], spread: float = 0.01, *, has_end: bool = True
) -> Trajectory:
    """Three seeds, at steps 10, 100 and 1000."""
    seeds = 1 + spread * np.array([[-1.0], [0.0], [1.0]])
    series = {name: np.full((3, 3), 0.02) for name in Trajectory.series_names()}
    series |= {"drift_train": seeds * np.array([drift]), "largest_logit": seeds * np.array([logit])}
    step = np.array([10, 100, 1000])
    return Trajectory(has_end=has_end, step=step, time=0.1 * step, **series)


def by_width(exponent: float, growth: float, logit_growth: float, spread: float = 0.01, **options):
    return {
        w: synthetic(
            [0.1 * w**exponent, w**exponent, growth * w**exponent],
            [1.0, 3.0, 3.0 * logit_growth],
            spread,
            **options,
        )
        for w in (64, 256, 1024)
    }


@pytest.mark.parametrize(
    ("regime", "exponent", "growth", "logit_growth", "finding", "reason"),
    [
        (Regime(0.1, 0.0), -0.9, 1.0, 1.0, "lazy", r"width\^-0\.90 .*within 0\.02 .* width 1024"),
        (Regime(0.0, 0.1), -0.5, 1.05, 0.9, "lazy", r"drift falls as width\^-0\.50"),
        (Regime(0.0, 0.0), -0.9, 3.0, 1.5, "not lazy", r"grew 3\.00 .* 1\.50 times, by 1\.5;"),
        (Regime(0.1, 0.0), 0.0, 1.0, 1.0, "not lazy", "does not fall with width"),
        (Regime(0.1, 0.0), 0.0, 1.5, 1.0, "not lazy", "does not fall with width"),
        (Regime(0.1, 0.0, "zero"), 0.0, 1.0, 0.1, "not lazy", r"pulls towards zero.* ends at 0\.3"),
        (Regime(0.1, 0.0), -0.9, 1.5, 1.5, "undecided", r"not ended: .* 1\.50 .*; train longer"),
        (Regime(0.0, 0.0), -0.9, 1.0, 1.0, "undecided", "logits grow without end, but here"),
    ],
)
def test_verdict_follows_the_thresholds(regime, exponent, growth, logit_growth, finding, reason):
    has_end = regime.ridge > 0 or regime.smoothing > 0
    verdict = judge(regime, by_width(exponent, growth, logit_growth, has_end=has_end))
    assert str(verdict.finding) == finding
    assert re.search(reason, verdict.reason)
    assert verdict.drift.exponent == pytest.approx(exponent, abs=1e-9)
    assert verdict.drift_growth == pytest.approx(growth)
    assert str(verdict).startswith(f"{regime}: {finding}: ")


def test_a_drift_that_comes_and_goes_is_seen_at_its_peak():
    """Drift that falls with width at the end, but not in the middle of training."""
    found = {w: synthetic([0.1, 0.5, 3 / w], [1.0, 3.0, 3.0]) for w in (64, 256, 1024)}
    verdict = judge(Regime(0.1, 0.0), found)
    assert verdict.drift.exponent == pytest.approx(-1.0)
    assert verdict.peak_drift.exponent == pytest.approx(0.0, abs=1e-9)
    assert verdict.finding is Finding.NOT_LAZY


def test_scattered_seeds_leave_the_verdict_open():
    verdict = judge(Regime(0.1, 0.0), by_width(-0.4, 1.0, 1.0, spread=0.6))
    assert verdict.finding is Finding.UNDECIDED
    assert "take more seeds or widths" in verdict.reason


def test_power_law_is_least_squares_with_students_t():
    rng = np.random.default_rng(0)
    widths = np.array([16.0, 32, 64, 128])
    values = 5 * widths[:, None] ** -0.7 * np.exp(0.2 * rng.normal(size=(4, 3)))
    found = PowerLaw.fit(widths, values)
    x = np.repeat(np.log(widths), 3)
    design = np.stack([np.ones(12), x], axis=1)
    target = np.log(values).ravel()
    solution, residual, *_ = np.linalg.lstsq(design, target)
    error = np.sqrt(residual[0] / 10 * np.linalg.inv(design.T @ design)[1, 1])
    reach = stats.t.ppf(0.975, 10) * error
    assert found.exponent == pytest.approx(solution[1])
    assert (found.lower, found.upper) == pytest.approx((solution[1] - reach, solution[1] + reach))
    np.testing.assert_allclose(found(widths), np.exp(design[::3] @ solution))


def test_two_values_leave_the_exponent_open():
    found = PowerLaw.fit(np.array([16.0, 64.0]), np.array([[1.0], [0.5]]))
    assert found.exponent == pytest.approx(-0.5)
    assert (found.lower, found.upper) == (-np.inf, np.inf)


@pytest.mark.parametrize(
    ("widths", "values", "message"),
    [
        ([64.0], [[1.0, 2.0]], r"at least two different widths; got \[64\.0\]"),
        ([64.0, 64.0], [[1.0], [2.0]], "at least two different widths"),
        ([16.0, 64.0], [[1.0], [0.0]], "positive, finite values; got a smallest of 0"),
        ([16.0, 64.0], [[1.0], [np.nan]], "positive, finite values"),
    ],
)
def test_no_exponent_is_made_up(widths, values, message):
    with pytest.raises(ConfigurationError, match=message):
        PowerLaw.fit(np.array(widths), np.array(values))


# --- the study ------------------------------------------------------------------------------------


def study(**changes: object) -> LazyStudy:
    settings = {
        "data": flowers(16),
        "family": Tiny,
        "widths": (16, 64),
        "regimes": four_regimes(ridge=1.0, smoothing=0.2),
        "num_seeds": 2,
        "num_steps": 300,
        "num_probes": 4,
    }
    return LazyStudy(**{**settings, **changes})


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lazy")
    study().run(folder, command="ntkbayes lazy --data iris")
    return folder


def forbid_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots, "write", lambda *_: None)
    monkeypatch.setattr(study_module, "follow", lambda *_, **__: pytest.fail("trained again"))


def test_study_writes_runs_tables_and_figures(finished):
    runs = {path.name for path in (finished / "runs").iterdir()}
    assert len(runs) == 8
    assert "ridge1-smoothing0.2-width64.npz" in runs
    frame = pd.read_csv(finished / "lazy.csv")
    times = len(recorded_steps(300))
    assert len(frame) == 8 * 2 * times
    assert set(frame.groupby("width").step.max()) == {300}
    assert frame.groupby(["step"]).time.nunique().max() == 1  # the same steps for all
    summary = json.loads((finished / "lazy.json").read_text())
    regime = {"ridge": 1.0, "smoothing": 0.0, "anchor": "init", "shifted": False}
    assert summary["verdicts"][0]["regime"] == regime
    assert summary["settings"]["command"] == "ntkbayes lazy --data iris"
    assert (finished / "lazy.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (finished / "lazy.svg").read_text(encoding="utf-8")


def test_ridge_and_smoothing_hold_what_one_hot_targets_let_go(finished):
    frame = pd.read_csv(finished / "lazy.csv")
    end = frame[frame.step == 300].groupby(["ridge", "smoothing"]).mean(numeric_only=True)
    free = end.loc[(0.0, 0.0)]
    for name in ("largest_logit", "distance", "drift_train"):
        assert (end.drop((0.0, 0.0))[name] < free[name]).all(), name


def test_second_run_trains_nothing_and_finds_the_same(finished, monkeypatch):
    before = (finished / "lazy.csv").read_bytes()
    forbid_training(monkeypatch)
    result = study().run(finished)
    assert (finished / "lazy.csv").read_bytes() == before
    table = result.table()
    assert list(table.index) == [
        "ridge 1",
        "ridge 1, smoothing 0.2",
        "no ridge",
        "no ridge, smoothing 0.2",
    ]
    np.testing.assert_array_equal(
        table["drift exponent"], [verdict.drift.exponent for verdict in result.verdicts]
    )
    assert set(table["interval"]) == {"95% over initialisations"}


def test_interrupted_study_goes_on_where_it_stopped(finished, tmp_path, monkeypatch):
    whole, trained = study_module.follow, []

    def follow_twice(trainer, *args, **options):
        if len(trained) == 2:
            raise KeyboardInterrupt
        trained.append(trainer.ridge)
        return whole(trainer, *args, **options)

    one = {"regimes": (Regime(1.0, 0.0), Regime(0.0, 0.0))}
    monkeypatch.setattr(study_module, "follow", follow_twice)
    with pytest.raises(KeyboardInterrupt):
        study(**one).run(tmp_path)
    monkeypatch.setattr(study_module, "follow", whole)
    assert trained == [1.0, 1.0]
    assert not (tmp_path / "lazy.csv").exists()
    monkeypatch.setattr(plots, "write", lambda *_: None)
    study(**one).run(tmp_path)
    mine, theirs = (pd.read_csv(folder / "lazy.csv") for folder in (tmp_path, finished))
    theirs = theirs[theirs.smoothing == 0].reset_index(drop=True)
    pd.testing.assert_frame_equal(mine, theirs)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seed": 1}, "data digest, seed|seed"),
        ({"num_steps": 400}, "steps"),
        ({"widths": (16, 32)}, "networks"),
        ({"regimes": four_regimes(ridge=2.0)}, "regimes"),
    ],
)
def test_folder_of_another_study_is_refused(changes, named, finished, monkeypatch):
    forbid_training(monkeypatch)
    with pytest.raises(StorageError, match=rf"other settings \(differing in: ({named})\)"):
        study(**changes).run(finished)


def test_broken_run_is_named(finished, tmp_path, monkeypatch):
    forbid_training(monkeypatch)
    (tmp_path / "runs").mkdir()
    for path in finished.glob("runs/*.npz"):
        (tmp_path / "runs" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "study.json").write_bytes((finished / "study.json").read_bytes())
    broken = tmp_path / "runs" / "ridge0-smoothing0-width64.npz"
    broken.write_bytes(broken.read_bytes()[:100])
    with pytest.raises(StorageError, match=r"width64\.npz is not a whole trajectory.*delete it"):
        study().run(tmp_path)


class Standard(Tiny):
    """The same functions in the standard parameterisation: small weights, nothing divided."""

    def init(self, key: Array, features: Float[Array, "n d"]) -> Params:
        drawn = super().init(key, features)
        d = features.shape[1]
        return jnp.concatenate([drawn[:d] / jnp.sqrt(d), drawn[d:] / jnp.sqrt(self.width)])

    def apply(self, params: Params, features: Float[Array, "n d"]) -> Float[Array, "n outputs"]:
        d = features.shape[1]
        return jax.nn.relu(features @ params[:d]) @ params[d:].T


@pytest.mark.parametrize(
    ("regimes", "said"),
    [
        (four_regimes(ridge=1.0, smoothing=0.2), r"the ridge 1 is another prior GP\(m, Θ/ridge\)"),
        ((Regime(0.0, 0.2),), "the same training time takes networks of different widths to"),
    ],
)
def test_an_ntk_that_grows_with_width_is_measured_and_told(regimes, said, tmp_path, monkeypatch):
    def stop(*_: object, **__: object) -> None:
        raise DivergenceError("far enough")

    monkeypatch.setattr(study_module, "follow", stop)
    with (
        pytest.warns(KernelScaleWarning, match=rf"goes as width\^(0\.[89]|1\.0)\d .*: {said}"),
        pytest.raises(DivergenceError),
    ):
        study(family=Standard, widths=(16, 256), num_seeds=4, regimes=regimes).run(tmp_path)


def test_diverged_training_is_named_with_regime_and_width(tmp_path, monkeypatch):
    whole = study_module.follow

    def overflow(trainer, params, points, **options):
        params = jax.tree.map(lambda leaf: 1e30 * leaf, params)
        return whole(trainer, params, points, **options)

    monkeypatch.setattr(study_module, "follow", overflow)
    with pytest.raises(DivergenceError, match=r"^ridge 1, width 16: "):
        study().run(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"widths": (64,)}, r"at least two different widths; got \[64\]"),
        ({"widths": (64, 64)}, r"at least two different widths; got \[64, 64\]"),
        ({"widths": (0, 64)}, "widths must be at least 1; got 0"),
        ({"max_points": 1}, "max_points must be at least 2; got 1"),
        ({"regimes": ()}, "no regimes"),
        ({"num_seeds": 0}, "num_seeds must be at least 1; got 0"),
        ({"num_probes": 0}, "num_probes must be at least 1; got 0"),
        ({"num_steps": 5}, "at least 10; got 5"),
        ({"seed": -1}, "at least 0 .* got -1"),
    ],
)
def test_bad_settings_are_named(changes, message):
    with pytest.raises(ConfigurationError, match=message):
        study(**changes)


def test_points_too_few_for_the_classes_are_refused_before_any_network_is_trained(tmp_path):
    three = LazyStudy(datasets.load("iris"), max_points=2)
    with pytest.raises(ConfigurationError, match="2 points cannot keep 3 classes"):
        three.run(tmp_path)


def test_a_rare_class_is_among_the_points_that_are_trained_on():
    rare = datasets.Dataset(np.arange(400.0)[:, None], np.arange(400) == 7)
    train, _ = rare.subset(KEY, 40).split(KEY)
    assert np.bincount(train.labels).tolist() == [29, 1]


def test_bad_regimes_are_named():
    with pytest.raises(ConfigurationError, match=r"ridge must be at least 0 .* got -1"):
        Regime(-1.0, 0.0)
    with pytest.raises(ConfigurationError, match=r"smoothing must lie in \[0, 1\]; got 2"):
        Regime(0.1, 2.0)
    with pytest.raises(ConfigurationError, match="where the ridge pulls, and the ridge is 0"):
        Regime(0.0, 0.0, "zero")
    with pytest.raises(UnknownNameError, match="unknown anchor 'theta0'; known are: init, zero"):
        Regime(0.1, 0.0, "theta0")
    with pytest.raises(ConfigurationError, match="give a ridge > 0; got 0"):
        four_regimes(ridge=0.0)
    with pytest.raises(ConfigurationError, match="give a smoothing > 0; got 0"):
        four_regimes(smoothing=0.0)


def test_bad_data_are_named(tmp_path):
    with pytest.raises(UnknownNameError, match="unknown data set 'iriss'"):
        study(data="iriss").run(tmp_path)
    numbers = nb.Dataset.real(flowers(8).features, np.arange(8.0))
    with pytest.raises(DataError, match="real-valued targets"):
        study(data=numbers).run(tmp_path)  # regimes with smoothing
    with pytest.raises(ConfigurationError, match=r"one for each of 1 logits; got \(1\.0, 2\.0\)"):
        study(data=numbers, regimes=None, mean=(1.0, 2.0), likelihood=Normal()).run(tmp_path)
    for bound, message in (
        (2.0, "training without ridge ends at the logits with zero residual"),
        (np.inf, "give it a curvature_bound"),
    ):
        squares = LogConcave(
            lambda y, f: -jnp.sum((y - f) ** 2),
            num_logits=1,
            examples=[[0.0]],
            curvature_bound=bound,
        )
        with pytest.raises(ConfigurationError, match=message):
            study(data=numbers, regimes=None, likelihood=squares).run(tmp_path)
    assert list(tmp_path.iterdir()) == []


# --- the certificate ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate() -> Certificate:
    options = {"num_seeds": 2, "num_steps": 300, "num_probes": 4}
    return certify(Linear(), flowers(16), ridge=1.0, key=KEY, **options)


def test_kernel_view_of_a_linear_network_holds(certificate):
    assert certificate.holds
    assert certificate.stopped
    assert certificate.drift == 0
    assert certificate.variation_test < 1e-5
    text = str(certificate)
    assert text.startswith("The kernel view holds within ")
    assert "training has stopped" in text


def test_kernel_view_of_a_narrow_network_without_ridge_does_not_hold():
    options = {"num_seeds": 2, "num_steps": 300, "num_probes": 4, "tolerance": 0.01}
    narrow = certify(Tiny(16), flowers(16), ridge=0.0, key=KEY, **options)
    assert not narrow.holds
    assert narrow.regime == Regime(0.0, 0.0)
    assert narrow.variation_test > narrow.tolerance
    text = str(narrow)
    assert "The kernel view does not hold: probabilities are off by up to" in text
    assert "without ridge on such targets never will" in text


TARGETS = {
    "numbers": (Normal(0.5), np.linspace(-1, 1, 16)),
    "counts": (Poisson(), np.arange(16.0) % 5),
    "grades": (Ordinal((-1.0, 1.0)), None),
    "a density": (
        LogConcave(
            lambda y, f: -jnp.sum(jnp.logaddexp(f - y, y - f)),  # curvature: sech² ≤ 1
            num_logits=1,
            examples=[[-1.0], [1.0]],
            curvature_bound=1.0,
        ),
        np.linspace(-1, 1, 16),
    ),
}


@pytest.mark.parametrize("name", TARGETS)
def test_linear_networks_are_lazy_under_every_likelihood(name):
    likelihood, values = TARGETS[name]
    x = flowers(16)
    data = x if values is None else nb.Dataset.real(x.features, values)
    one = nb.networks.from_functions(
        lambda key, x: jax.random.normal(key, (x.shape[1], 1), x.dtype), lambda w, x: x @ w
    )
    options = {"num_seeds": 2, "num_steps": 6000, "num_probes": 4, "shifted": True}
    found = certify(one, data, ridge=1.0, key=KEY, likelihood=likelihood, **options)
    assert found.holds
    assert found.peak_drift == 0
    assert found.peak_variation < 1e-4
    t = found.trajectory
    assert np.all(t.loss[:, -1] < t.loss[:, 0])


def test_the_brier_score_has_no_law_but_is_measured():
    score, data = Brier(), flowers(16)
    logits, targets = 3 * jax.random.normal(KEY, (200, 3)), jnp.eye(3)[jnp.arange(200) % 3]
    slope = jax.grad(lambda f: jnp.sum(score.log_density(targets, f)))(logits)
    np.testing.assert_allclose(score.residual(targets, logits), slope, atol=1e-12)
    hessians = jax.vmap(jax.hessian(lambda f, y: score.log_density(y[None], f[None])[0]))
    sizes = jnp.abs(jnp.linalg.eigvalsh(hessians(logits, targets)))
    assert 0.5 < sizes.max() < score.curvature_bound
    with pytest.raises(ConfigurationError, match=r"Brier is not log-concave .* no law"):
        nb.MAP().fit(nb.NTKPrior(nb.networks.mlp(), ridge=1.0), data, likelihood=score)
    options = {"num_seeds": 2, "num_steps": 300, "num_probes": 4}
    found = certify(Linear(), data, ridge=1.0, key=KEY, likelihood=score, **options)
    assert found.peak_drift == 0
    assert np.all(found.trajectory.loss[:, -1] < found.trajectory.loss[:, 0])


def test_numbers_get_noise_and_mean_from_the_training_points():
    x = flowers(16)
    data = nb.Dataset.real(x.features, 150 + 10 * x.features[:, 0])
    options = {"num_seeds": 2, "num_steps": 300, "num_probes": 4}
    network = Tiny(64, num_outputs=1)
    found = certify(network, data, ridge=0.01, key=KEY, **options)
    assert np.all(found.trajectory.largest_logit > 100)  # they start at the mean, not at 0
    assert found.drift < 1


def test_certificate_with_the_anchor_at_zero_says_why_it_does_not_hold():
    options = {"num_seeds": 2, "num_steps": 300, "num_probes": 4, "anchor": "zero"}
    found = certify(Tiny(64), flowers(16), ridge=1.0, key=KEY, **options)
    assert not found.holds
    assert found.peak_drift >= found.drift > 0.3
    assert "the ridge pulls towards zero: the weights shrink" in str(found)


def test_certificate_speaks_of_the_worst_point(certificate):
    t = certificate.trajectory
    assert certificate.variation_test == t.worst_variation_test[:, -1].max()
    assert certificate.training_time == t.time[-1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ridge": -0.1}, r"ridge must be at least 0 and finite; got -0\.1"),
        ({"smoothing": 1.5}, r"smoothing must lie in \[0, 1\]; got 1\.5"),
        ({"num_seeds": 0}, "num_seeds must be at least 1; got 0"),
        ({"num_steps": 3}, "at least 10; got 3"),
        ({"tolerance": 0.0}, r"tolerance must lie in \(0, 1\]; got 0\.0"),
    ],
)
def test_bad_certificates_are_named(options, message):
    with pytest.raises(ConfigurationError, match=message):
        certify(Linear(), flowers(16), key=KEY, **{"ridge": 0.1, **options})
