"""How long a fit will take is told beforehand, and what takes too long is left out of a study."""

import dataclasses
import math
from contextlib import nullcontext

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from laws.test_contract import METHODS, NETWORKS

import ntkbayes as nb
from ntkbayes import work
from ntkbayes.app import budget
from ntkbayes.app.baselines import BASELINES
from ntkbayes.app.report import page
from ntkbayes.app.study import Study
from ntkbayes.errors import ConfigurationError
from ntkbayes.kernels import EmpiricalKernel
from ntkbayes.kernels.empirical.plan import operations
from ntkbayes.training.operations import Size
from ntkbayes.work import COMPILATION, Work

PRIOR = nb.NTKPrior(nb.networks.mlp(depth=1), ridge=0.5)
ENDLESS = nb.NUTS(num_samples=10**9)


def labelled(size: int, classes: int = 3) -> nb.Dataset:
    features = np.random.default_rng(0).normal(size=(size, 4))
    return nb.Dataset(features, np.arange(size) % classes)


def total(method, size, classes=3, num_new=0):
    parts = method.work(PRIOR, labelled(size, classes), num_new=num_new).parts
    return sum(parts.values())


@pytest.mark.parametrize("name", [name for name in METHODS if name not in NETWORKS])
def test_work_grows_faster_than_the_points_and_no_faster_than_their_cube(name):
    small, large = (total(METHODS[name], size) for size in (2000, 4000))
    assert 2 < large / small <= 8.01


@pytest.mark.parametrize("name", [n for n in METHODS if n not in (*NETWORKS, "MAP")])
def test_predictions_at_new_points_are_work_too(name):
    assert total(METHODS[name], 500, num_new=500) > total(METHODS[name], 500)


def test_work_of_real_networks_is_not_predicted():
    told = METHODS["finite ensemble"].work(PRIOR, labelled(50))
    assert (dict(told.parts), told.seconds) == ({}, 0.0)


def test_work_of_laplace_is_that_of_its_factors_for_many_classes():
    # n³/3 per class and 2n³/3 for its inverse, at half the speed of products.
    ten, twenty = (nb.Laplace().work(PRIOR, labelled(3000, classes)) for classes in (10, 20))
    assert twenty.parts["factors"] - ten.parts["factors"] == pytest.approx(2 * 10 * 3000**3)


def of_network(max_rows):
    network = nb.networks.mlp(depth=1, width=8, num_outputs=3)
    params = network.init(jax.random.key(0), jnp.ones((1, 4)))
    return nb.NTKPrior(EmpiricalKernel(network, params, max_rows=max_rows), ridge=0.5)


def test_work_of_a_coupled_kernel_is_that_of_all_its_rows():
    # n³/3 of one factor, at half the speed of products.
    told = nb.Laplace().work(of_network(None), labelled(600))
    assert told.parts["factors"] == pytest.approx(2 * 1800**3 / 3)


@pytest.mark.parametrize("method", [nb.Variational(), nb.MeanField()], ids=lambda m: m.name)
def test_work_of_sites_is_that_of_inverses_whatever_couples_the_outputs(method):
    of_shared = method.operations(Size(600, 1, 0, couples=False))
    of_coupled = method.operations(Size(600, 1, 0, couples=True))
    assert of_shared["fixed point"] == of_coupled["fixed point"]
    assert of_shared["fixed point"] % (2 * 600**3 * (1 + 1 / 3)) == pytest.approx(0.0)


def test_work_of_a_real_networks_gram_is_that_of_its_plan():
    prior, data = of_network(None), labelled(600)
    plan = prior.kernel.tangent.plan(jnp.asarray(data.features))
    told = nb.MAP().work(prior, data).parts["kernels"]
    assert told == pytest.approx(sum(step.operations for step in plan.steps))  # half, at half speed


def test_work_by_products_is_that_of_passes_through_the_network():
    """Per point, at half the speed of products, with 4 inputs, 8 units and 3 outputs. Of the first
    layer: its outputs twice, the step in its weights, and what that does. Of the second also the
    signal to the units, and what their move does."""
    prior, data = of_network(0), labelled(600)
    product = 2 * 600 * 2 * (4 * 4 * 8 + 6 * 8 * 3)
    assert prior.kernel.product_operations(jnp.asarray(data.features)) == product
    laplace = nb.Laplace().work(prior, data, num_new=10).parts
    more = nb.Laplace().work(prior, data, num_new=20).parts
    assert laplace["training"] == 60 * product
    assert more["variances"] - laplace["variances"] == 10 * 3 * 25 * product
    draws = nb.RandomInit(num_inits=7).work(prior, data).parts["draws"]
    assert draws == 7 * laplace["training"]


def test_operations_are_those_of_products_convolutions_and_loops():
    def loop(v, w):
        return jax.lax.scan(lambda v, _: (v @ w, None), v, length=7)[0]

    v, w = jnp.ones((3, 4)), jnp.ones((4, 4))
    assert operations(jax.make_jaxpr(loop)(v, w)) == 7 * 2 * 3 * 4 * 4
    stack = jnp.ones((5, 3, 4)), jnp.ones((5, 4, 2))
    assert operations(jax.make_jaxpr(jnp.matmul)(*stack)) == 2 * 5 * 3 * 4 * 2
    images, window = jnp.ones((2, 6, 8, 8)), jnp.ones((10, 3, 5, 5))

    def convolve(images, window):
        return jax.lax.conv(images[:, :3], window, (1, 1), "SAME")

    expected = 2 * (2 * 10 * 8 * 8) * (3 * 5 * 5)
    assert operations(jax.make_jaxpr(convolve)(images, window)) == expected


def test_seconds_are_operations_by_the_speed_of_products_and_compilation(monkeypatch):
    monkeypatch.setattr(work, "speed", lambda: 1e9)
    assert Work("x", {"a": 1e9, "b": 2e9}).seconds == COMPILATION + 3


def test_speed_is_that_of_a_machine():
    assert 1e8 < work.speed() < 1e15
    assert work.speed() == work.speed()


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (3.14, "about 3 s"),
        (80, "about 80 s"),
        (100, "about 1.7 min"),
        (4000, "about 67 min"),
        (7200, "about 2 h"),
        (1e6, "about 280 h"),
    ],
)
def test_times_are_told_in_the_unit_that_suits_them(seconds, words):
    assert work.in_words(seconds) == words


@given(
    seconds=st.lists(st.floats(0.01, 1e4), min_size=1, max_size=8),
    share=st.floats(0.01, 1.2),
)
def test_the_longest_are_left_out_and_no_more_than_needed(seconds, share):
    works = {f"law {i}": _FixedWork(value) for i, value in enumerate(seconds)}
    limit = share * sum(seconds)
    if min(seconds) > limit:
        with pytest.raises(ConfigurationError, match="no law would end within"):
            budget.beyond(works, limit)
        return
    left_out = budget.beyond(works, limit)
    kept = [work.seconds for name, work in works.items() if name not in left_out]
    assert sum(kept) <= limit * (1 + 1e-9)
    if left_out:
        assert max(kept) <= min(left_out.values())
        assert sum(kept) + min(left_out.values()) > limit * (1 - 1e-9)


class _FixedWork(Work):
    def __init__(self, seconds):
        super().__init__("a law", {"all": seconds})

    @property
    def seconds(self):
        return self.parts["all"]


def study(**changes):
    given = {
        "data": labelled(40),
        "prior": PRIOR,
        "methods": {"MAP": nb.MAP(), "endless": ENDLESS},
        "max_seconds": 600.0,
    }
    return Study(**{**given, **changes})


def test_a_law_that_would_not_end_is_left_out_and_named(tmp_path):
    announced = []
    comparison = study().run(tmp_path, announce=lambda what: nullcontext(announced.append(what)))
    assert set(comparison.predictions) == {"MAP", *BASELINES}
    assert comparison.settings["left out"]["endless"] > 600
    told = budget.sentence(comparison.settings)
    assert "endless (about" in told
    assert "--laws" in told
    assert any(what.startswith("endless is left out: it would take about") for what in announced)
    assert "endless (about" in page(comparison, tmp_path)
    assert study().is_finished(tmp_path)
    assert not study(max_seconds=math.inf).is_finished(tmp_path)
    assert nb.load(tmp_path).settings["left out"] == comparison.settings["left out"]


def test_a_law_that_is_finished_takes_no_time(tmp_path):
    short = study(methods={"MAP": nb.MAP()}, baselines=False)
    short.run(tmp_path)
    again = dataclasses.replace(short, max_seconds=0.001)
    assert set(again.run(tmp_path).predictions) == {"MAP"}


def test_a_study_without_time_for_any_law_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="no law would end within 1 s: MAP alone takes"):
        study(max_seconds=1.0).run(tmp_path)
    assert not (tmp_path / "comparison.json").exists()


@pytest.mark.parametrize("seconds", [0.0, -1.0, math.nan])
def test_max_seconds_is_positive(seconds):
    with pytest.raises(ConfigurationError, match="max_seconds"):
        study(max_seconds=seconds)
