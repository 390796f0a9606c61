"""Hyper-parameters sampled together with the latent function."""

import dataclasses
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.diagnostics import effective_sample_size
from numpyro.infer import MCMC
from numpyro.infer import NUTS as Kernel
from numpyro.infer.util import log_density
from oracles import gp_classification as oracle
from scipy import stats
from scipy.special import logsumexp

import ntkbayes as nb
from ntkbayes.errors import ConfigurationError, ConvergenceError, RidgeError, UnknownNameError
from ntkbayes.laws import Problem
from ntkbayes.laws.chains.hierarchical import factor, factor_at
from ntkbayes.priors.hyperparameters import value_of, with_values

KEY = jax.random.key(1)
NETWORK = nb.networks.mlp(depth=1, activation="erf", weight_std=1.4, bias_std=0.6)
PRIOR = nb.NTKPrior(NETWORK, ridge=0.5)
NEW = np.array([[0.0, 0.0], [1.5, 0.3], [6.0, -6.0]])
RIDGE = dist.LogNormal(-1.0, 0.8)


def data_of(count=8):
    features, labels = oracle.blobs(7, count, 2)
    return nb.Dataset(features, labels, class_names=range(2))


def fit(**settings):
    settings = {"num_samples": 300, "num_warmup": 200, "num_chains": 2, **settings}
    return nb.FullBayes({"ridge": RIDGE}, **settings).fit(PRIOR, data_of(), key=KEY)


@pytest.fixture(scope="module")
def law():
    return fit()


def log_likelihood(values, z):
    """log p(y | mean + L z), and the factor L, by hand."""
    data = data_of()
    gram = np.asarray(with_values(PRIOR, values).gram(data.features).ntk)
    gram = gram / values.get("ridge", 0.5)
    lower = np.linalg.cholesky(gram + 1e-9 * np.mean(np.diag(gram)) * np.eye(8))
    return oracle.Logistic().log_density(data.targets[:, 1:], lower @ z), lower


def white(z):
    return -np.sum(np.square(z)) / 2 - np.size(z) / 2 * np.log(2 * np.pi)


def test_its_evidence_is_not_that_of_bridge_sampling(law):
    with pytest.raises(ConfigurationError, match=r"FullBayes is nb\.full_bayes_evidence's"):
        nb.bridge_evidence(law, key=KEY)


def test_the_models_density_is_prior_times_likelihood_written_by_hand():
    model = nb.numpyro_model(
        PRIOR, data_of(), hyperpriors={"ridge": RIDGE, "weight_std": dist.HalfNormal()}
    )
    values = {"ridge": 0.7, "weight_std": 1.1}
    position = jax.random.normal(KEY, (8, 1))

    def whitened(position):
        _, trace = log_density(model, (), {}, {**values, "whitened_position": position})
        return trace["whitened"]["value"]

    found, _ = log_density(model, (), {}, {**values, "whitened_position": position})
    z, jacobian = np.array(whitened(position)), jax.jacobian(whitened)(position)
    volume = np.linalg.slogdet(np.array(jacobian).reshape(8, 8))[1]
    hyper = float(RIDGE.log_prob(0.7) + dist.HalfNormal().log_prob(1.1))
    expected = log_likelihood(values, z)[0] + white(z) + volume + hyper
    np.testing.assert_allclose(found, expected, rtol=1e-7)


@pytest.mark.parametrize("mean", [0.0, 0.4])
def test_under_a_normal_likelihood_the_coordinates_are_white_at_all_hyperparameters(mean):
    # log p(y, ξ | θ) = log N(y; mean, P + σ² I) + log N(ξ; 0, I), far from where the sites were found.
    features = data_of().features
    targets = np.sin(features[:, 0])
    prior = eqx.tree_at(lambda prior: prior.mean, PRIOR, jnp.asarray(mean))
    model = nb.numpyro_model(
        prior, nb.Dataset.real(features, targets), likelihood=nb.likelihood.Normal(0.1)
    )
    for ridge in (0.01, 3.0):
        position = jax.random.normal(KEY, (8, 1))
        found, _ = log_density(model, ({"ridge": ridge},), {}, {"whitened_position": position})
        covariance = np.asarray(PRIOR.gram(features).ntk) / ridge + 0.01 * np.eye(8)
        evidence = stats.multivariate_normal(np.full(8, mean), covariance).logpdf(targets)
        np.testing.assert_allclose(found, evidence + white(position), rtol=1e-6)


@pytest.mark.parametrize("noise_std", [0.1, 1e3])
def test_the_first_mass_is_the_curvature_of_the_posterior_in_the_log_of_the_hyperparameters(
    noise_std,
):
    features = data_of().features
    targets = np.sin(features[:, 0])
    locs, scales = np.array([-1.0, 0.3]), np.array([0.8, 0.5])
    hyperpriors = {
        "ridge": dist.LogNormal(locs[0], scales[0]),
        "weight_std": dist.LogNormal(locs[1], scales[1]),
    }
    model = nb.numpyro_model(
        PRIOR,
        nb.Dataset.real(features, targets),
        hyperpriors=hyperpriors,
        likelihood=nb.likelihood.Normal(noise_std),
    )

    def log_density(logs):
        ridge, weight_std = jnp.exp(logs)
        gram = with_values(PRIOR, {"weight_std": weight_std}).gram(features).ntk.dense()
        covariance = gram / ridge + noise_std**2 * jnp.eye(8)
        evidence = jax.scipy.stats.multivariate_normal.logpdf(targets, jnp.zeros(8), covariance)
        return evidence - jnp.sum(((logs - locs) / scales) ** 2) / 2

    best = np.array([np.log(model.start[name]) for name in hyperpriors])
    curvature = -np.asarray(jax.hessian(log_density)(best))
    found = model.inverse_mass_matrix["ridge", "weight_std"]
    np.testing.assert_allclose(found, np.linalg.inv(curvature), rtol=2e-3, atol=1e-6)


def poisson(target, logits):
    return jnp.sum(target * logits - jnp.exp(logits) - jax.scipy.special.gammaln(target + 1))


def test_however_much_the_targets_say_no_direction_is_much_narrower_than_another():
    # Steps are as short as the narrowest direction, trajectories as long as the widest.
    features = data_of().features
    counts = np.random.default_rng(0).poisson(np.exp(2 + 2 * np.sin(features[:, 0])))
    likelihood = nb.likelihood.LogConcave(poisson, num_logits=1, examples=[[0.0], [50.0]])
    given = {"hyperpriors": {"ridge": RIDGE}, "likelihood": likelihood}
    data = nb.Dataset.real(features, counts.astype(float))
    model = nb.numpyro_model(PRIOR, data, **given)
    plain = nb.numpyro_prior(PRIOR, data, **given)

    def observed():
        numpyro.factor(
            "counts", jnp.sum(likelihood.log_density(jnp.asarray(data.targets), plain()))
        )

    def curvatures(model, site):
        def potential(position, ridge):
            return -log_density(model, (), {}, {"ridge": ridge, site: position[:, None]})[0]

        at = [(jnp.full(8, shift), ridge) for shift in (-1.0, 1.0) for ridge in (0.05, 0.4)]
        hessian = jax.jit(jax.hessian(potential))
        return np.array([np.linalg.eigvalsh(hessian(*place)) for place in at])

    values = curvatures(model, "whitened_position")
    assert values.min() > 0.1
    assert values.max() < 10
    assert curvatures(observed, "whitened").max() > 100


def test_softmax_leaves_the_mean_of_a_points_logits_to_the_prior():
    features, labels = oracle.blobs(7, 8, 3)
    model = nb.numpyro_model(PRIOR, nb.Dataset(features, labels, class_names=range(3)))

    def declared(position):
        found, trace = log_density(model, (), {}, {"whitened_position": position})
        return found, trace["whitened"]["value"]

    position = jax.random.normal(KEY, (8, 3))
    moved = position.at[:, 2].set(jnp.arange(8.0))
    (before, z), (after, y) = declared(position), declared(moved)
    np.testing.assert_allclose(after - before, white(moved) - white(position), rtol=1e-9)
    change = (moved - position)[:, 2:] / np.sqrt(3)
    np.testing.assert_allclose(y - z, np.broadcast_to(change, (8, 3)), atol=1e-12)
    volume = np.linalg.slogdet(
        np.array(jax.jacobian(lambda v: declared(v)[1])(position)).reshape(24, 24)
    )[1]
    gram = np.asarray(PRIOR.gram(features).ntk) / 0.5
    f = np.linalg.cholesky(gram + 1e-9 * np.mean(np.diag(gram)) * np.eye(8)) @ np.asarray(z)
    likelihood = np.sum(f[np.arange(8), labels] - logsumexp(f, axis=1))
    np.testing.assert_allclose(before, likelihood + white(z) + volume, rtol=1e-7)


# --- an observation model of one's own ------------------------------------------------------------


def test_a_likelihood_of_ones_own_with_an_offset_per_group_follows_the_latent_logits():
    latent = nb.numpyro_prior(PRIOR, data_of(), hyperpriors={"ridge": RIDGE})
    group, seen = np.arange(8) % 2, np.linspace(-1, 1, 8)

    def model():
        offset = numpyro.sample("offset", dist.Normal(0.0, 2.0).expand((2,)).to_event(1))
        logits = latent()
        numpyro.sample("seen", dist.Normal(logits[:, 0] + offset[group], 0.3).to_event(1), obs=seen)

    z, offset = jax.random.normal(KEY, (8, 1)), np.array([0.5, -1.0])
    found, trace = log_density(model, (), {}, {"ridge": 0.7, "whitened": z, "offset": offset})
    assert {name for name, site in trace.items() if site["type"] == "sample"} == {
        *("offset", "ridge", "whitened", "seen")
    }
    _, lower = log_likelihood({"ridge": 0.7}, z)
    residual = seen - (lower @ z)[:, 0] - offset[group]
    expected = stats.norm(0, 0.3).logpdf(residual).sum() + stats.norm(0, 2).logpdf(offset).sum()
    np.testing.assert_allclose(found, expected + white(z) + float(RIDGE.log_prob(0.7)), rtol=1e-6)


def test_the_model_is_its_prior_in_its_coordinates_and_the_likelihood():
    model = nb.numpyro_model(PRIOR, data_of())
    latent = nb.numpyro_prior(PRIOR, data_of())

    def by_hand():
        logits = latent()
        labels = data_of().targets[:, 1]
        numpyro.sample("y", dist.Bernoulli(logits=logits[:, 0]).to_event(1), obs=labels)

    fast = numpyro.handlers.reparam(by_hand, config={"whitened": latent.coordinates})
    at = {"whitened_position": jax.random.normal(KEY, (8, 1))}
    found, _ = log_density(fast, (), {}, at)
    np.testing.assert_allclose(found, log_density(model, (), {}, at)[0], rtol=1e-10)


def test_draws_of_the_latent_function_within_a_larger_model_make_its_law():
    latent = nb.numpyro_prior(PRIOR, data_of())
    with jax.numpy_rank_promotion("allow"):
        drawn = numpyro.infer.Predictive(latent, num_samples=4000)(KEY)
    draws = {name: part.reshape(2, 2000, 8, 1) for name, part in drawn.items()}
    law = latent.law(draws)
    assert law.kind.name == "latent function of a larger model"
    assert not law.kind.is_posterior  # its likelihood is not that of the problem
    truth = oracle.Gauss(np.zeros((3, 1)), np.asarray(PRIOR.gram(NEW).ntk) / 0.5)
    assert np.abs(oracle.mean_errors(law.sample(KEY, NEW), truth)).max() < 4.5
    assert np.abs(oracle.covariance_errors(law.sample(KEY, NEW), truth)).max() < 4.5


def test_chains_start_where_evidence_times_hyperprior_is_greatest():
    model = nb.numpyro_model(PRIOR, data_of(), hyperpriors={"ridge": RIDGE})
    offsets = [
        start.log_density
        - nb.log_evidence(with_values(PRIOR, start.values), data_of())
        - float(RIDGE.log_prob(start.values["ridge"]))
        for start in (model.starts[0], model.starts[-1])
    ]
    np.testing.assert_allclose(offsets, 0.0, atol=1e-6)
    assert model.starts[0].log_density > model.starts[-1].log_density
    assert model.start["ridge"] == model.starts[0].values["ridge"]


def test_a_hyperprior_without_a_finite_posterior_density_is_refused():
    huge = dist.Uniform(1e200, 2e200)
    with pytest.raises(
        ConvergenceError, match="no draw of the hyper-priors has a finite posterior"
    ):
        nb.numpyro_model(PRIOR, data_of(), hyperpriors={"weight_std": huge})


def test_the_model_stands_what_importing_arviz_first_does_to_numpyro(monkeypatch):
    monkeypatch.delattr(dist, "distribution")
    with pytest.raises(AttributeError):
        numpyro.handlers.trace(lambda: numpyro.factor("likelihood", 0.0)).get_trace()
    model = numpyro.handlers.seed(nb.numpyro_model(PRIOR, data_of()), KEY)
    assert "likelihood" in numpyro.handlers.trace(model).get_trace()


def test_the_prior_of_hyperparameters_of_an_outer_model_is_not_known(law):
    outer = eqx.tree_at(lambda law: law.prior_values, law, {})
    with pytest.raises(ConfigurationError, match=r"the prior of ridge belongs to the model around"):
        nb.before_data(outer, key=KEY)


def test_the_posterior_of_the_ridge_is_that_of_evidence_times_hyperprior(law):
    # Importance-weighted evidence on a grid of the log ridge is exact up to Monte Carlo error.
    grid = np.linspace(-4.0, 2.0, 25)
    log_posterior = []
    for log_ridge in grid:
        prior = with_values(PRIOR, {"ridge": np.exp(log_ridge)})
        gaussian = nb.ExpectationPropagation().fit(prior, data_of())
        log_weights = gaussian.log_weights(gaussian.sample(KEY, data_of().features, 20_000))
        evidence = float(jax.scipy.special.logsumexp(log_weights)) - np.log(20_000)
        log_posterior.append(evidence + float(dist.Normal(-1.0, 0.8).log_prob(log_ridge)))
    weights = np.exp(np.array(log_posterior) - max(log_posterior))
    weights /= weights.sum()
    mean = weights @ grid
    spread = np.sqrt(weights @ (grid - mean) ** 2)
    draws = np.log(np.asarray(law.values["ridge"]))
    assert abs(draws.mean() - mean) < 4 * spread / np.sqrt(law.info.min_bulk_ess)
    # Squares have fewer effective draws than what is squared.
    squares = effective_sample_size((draws - draws.mean()).reshape(2, -1) ** 2)
    assert abs(draws.std() / spread - 1) < 4 / np.sqrt(2 * squares)


@pytest.mark.parametrize("which", ["sample", "sample_marginals"])
def test_draws_have_the_mean_and_variance_of_the_law(law, which):
    draws = np.asarray(getattr(law, which)(KEY, NEW))
    mean, variance = np.asarray(law.mean(NEW)), np.asarray(law.variance(NEW))
    assert draws.shape == (600, 3, 1)
    assert np.abs((draws.mean(0) - mean) / np.sqrt(variance / 600)).max() < 4.5
    assert np.abs(draws.var(axis=0, ddof=1) / variance - 1).max() < 0.5
    np.testing.assert_array_equal(draws, getattr(law, which)(KEY, NEW))


def test_marginal_draws_at_an_input_depend_on_no_other_input(law):
    draws = law.sample_marginals(KEY, NEW, 7)
    np.testing.assert_allclose(law.sample_marginals(KEY, NEW[1:2], 7), draws[:, 1:2], atol=1e-9)


def test_draws_at_training_points_are_the_sampled_logits(law):
    features = data_of().features
    ridges, f = law.values["ridge"], law.sample(KEY, features, 6)
    for i, place in enumerate(range(0, 600, 100)):
        gram = np.asarray(PRIOR.gram(features).ntk) / float(ridges[place])
        lower = np.linalg.cholesky(gram + 1e-9 * np.mean(np.diag(gram)) * np.eye(8))
        np.testing.assert_allclose(f[i], lower @ law.whitened[place], atol=1e-2)


def test_a_user_can_extend_the_model():
    model = nb.numpyro_model(PRIOR, data_of(), hyperpriors={"ridge": RIDGE})

    def extended():
        offset = numpyro.sample("offset", dist.Normal(0.0, 1.0))
        logits = model()
        numpyro.sample("seen", dist.Normal(logits.mean() + offset, 0.1), obs=0.5)

    at = {"ridge": 0.5, "whitened_position": jnp.zeros((8, 1))}
    value, trace = log_density(extended, (), {}, {**at, "offset": 0.2})
    assert {"offset", "ridge", "whitened", "logits", "seen"} <= set(trace)
    alone, _ = log_density(model, (), {}, at)
    logits = trace["logits"]["value"].mean()
    added = dist.Normal(0.0, 1.0).log_prob(0.2) + dist.Normal(logits + 0.2, 0.1).log_prob(0.5)
    np.testing.assert_allclose(value, alone + added)


# --- as a part of a larger model -----------------------------------------------------------------

GROUPS = ("a", "b")


def pooled(parts):
    """Two groups with a ridge each, both from one site of the model's own."""

    def model():
        centre = numpyro.sample("centre", dist.Normal(-1.0, 0.5))
        ridges = numpyro.sample("ridges", dist.LogNormal(centre, 0.3).expand((2,)).to_event(1))
        for name, part, ridge in zip(GROUPS, parts, ridges, strict=True):
            with numpyro.handlers.scope(prefix=name):
                part({"ridge": ridge})

    return model


@pytest.fixture(scope="module")
def chains():
    parts = [nb.numpyro_model(PRIOR, data_of(count)) for count in (6, 8)]
    with jax.numpy_rank_promotion("allow"):
        run = MCMC(
            Kernel(pooled(parts)),
            num_warmup=50,
            num_samples=50,
            num_chains=2,
            chain_method="vectorized",
            progress_bar=False,
        )
        run.run(KEY)
    return parts, run.get_samples(group_by_chain=True)


def of_group(draws, name):
    return {site.removeprefix(f"{name}/"): part for site, part in draws.items()}


def test_hyperparameters_may_come_from_sites_around_the_model():
    part = nb.numpyro_prior(PRIOR, data_of())
    alone = nb.numpyro_prior(with_values(PRIOR, {"ridge": 0.2}), data_of())
    whitened = {"whitened": jax.random.normal(KEY, (8, 1))}
    found, _ = log_density(lambda: part({"ridge": 0.2}), (), {}, whitened)
    expected, _ = log_density(alone, (), {}, whitened)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.filterwarnings("ignore::ntkbayes.errors.ConvergenceWarning")
def test_chains_of_a_larger_model_give_laws_of_its_parts(chains):
    parts, draws = chains
    for i, (name, part) in enumerate(zip(GROUPS, parts, strict=True)):
        law = part.law(of_group(draws, name), values={"ridge": draws["ridges"][:, :, i]})
        assert (law.kind, law.num_chains) == (nb.FullBayes.kind, 2)
        sampled = np.array(draws[f"{name}/logits"]).reshape(100, -1, 1)
        features = part.problem.features
        np.testing.assert_allclose(law.sample(KEY, features), sampled, atol=1e-2)
        np.testing.assert_allclose(law.mean(features), sampled.mean(axis=0), atol=1e-6)
        found = nb.predict(law, data_of(6 + 2 * i), key=KEY, name=name)
        assert found.info == dataclasses.asdict(law.info)
        assert 1 < law.info.min_bulk_ess < 200


@pytest.mark.filterwarnings("ignore::ntkbayes.errors.ConvergenceWarning")
def test_draws_that_are_not_those_of_the_model_are_refused(chains):
    (part, _), draws = chains
    own, ridges = of_group(draws, "a"), {"ridge": draws["ridges"][:, :, 0]}
    with pytest.raises(
        ConfigurationError, match="give in values all that the model was called with"
    ):
        part.law(own)
    with pytest.raises(ConfigurationError, match="lack the site 'whitened'"):
        part.law(draws, values=ridges)
    flat = {name: draw.reshape(-1, *draw.shape[2:]) for name, draw in own.items()}
    with pytest.raises(ConfigurationError, match=r"give \(chains, samples, \.\.\.\)"):
        part.law(flat, values={"ridge": flat["ridges"][:, 0]})
    with pytest.raises(UnknownNameError, match="hyper-parameter 'rigde'"):
        part.law(own, values={"rigde": ridges["ridge"]})


def test_a_hyperparameter_has_a_hyperprior_or_a_value():
    model = nb.numpyro_model(PRIOR, data_of(), hyperpriors={"ridge": RIDGE})
    with pytest.raises(ConfigurationError, match="ridge has a hyper-prior already"):
        log_density(lambda: model({"ridge": 0.2}), (), {}, {})
    with pytest.raises(UnknownNameError, match="hyper-parameter 'rigde'"):
        log_density(lambda: model({"rigde": 0.2}), (), {}, {})


class Stretched(nb.kernels.Kernel):
    """A kernel of a user's own, with a number."""

    kernel: nb.kernels.Kernel
    length: float = 1.0
    label: str = eqx.field(default="mine", static=True)

    def cross(self, x1, x2):
        return self.kernel.cross(x1 / self.length, x2 / self.length)

    def diagonal(self, x):
        return self.kernel.diagonal(x / self.length)


def test_numbers_of_a_kernel_of_ones_own_are_hyperparameters_by_their_names():
    kernel = Stretched(nb.kernels.analytic_kernel(NETWORK))
    prior = nb.NTKPrior(kernel, ridge=0.5)
    model = nb.numpyro_prior(prior, data_of(), hyperpriors={"length": dist.Normal(2.0, 1.0)})
    z = jax.random.normal(KEY, (8, 1))
    found, _ = log_density(model, (), {}, {"length": 1.6, "whitened": z})
    data = nb.Dataset(data_of().features / 1.6, data_of().targets)
    scaled, _ = log_density(nb.numpyro_prior(PRIOR, data), (), {}, {"whitened": z})
    np.testing.assert_allclose(found, scaled + dist.Normal(2.0, 1.0).log_prob(1.6), rtol=1e-9)
    for name in ("kernel", "label", "lenght"):
        with pytest.raises(UnknownNameError, match=f"'{name}'; known are: .*mean, length"):
            value_of(prior, name)
    with pytest.raises(ConfigurationError, match=r"no search range for length; pass ranges="):
        nb.maximise_evidence(prior, data_of(), over=("length",))
    climbed = nb.maximise_evidence(
        prior, data_of(), over=("length",), ranges={"length": (0.01, 100.0)}
    )
    beside = [nb.log_evidence(with_values(prior, {"length": v}), data_of()) for v in (0.5, 1, 2)]
    assert climbed.log_evidence >= max(beside)


@pytest.mark.parametrize(
    ("hyperpriors", "error", "message"),
    [
        ({"ridge": dist.Normal()}, ConfigurationError, "ridge must have positive support, Normal"),
        ({"ridge": dist.Uniform(-1.0, 1.0)}, ConfigurationError, "must have positive support"),
        ({"ridge": 0.3}, ConfigurationError, "must be a NumPyro distribution; got 0.3"),
        ({"ridge": dist.HalfNormal().expand((3,))}, ConfigurationError, r"has shape \(3,\)"),
        ({"depth": dist.HalfNormal()}, UnknownNameError, "hyper-parameter 'depth'"),
    ],
)
def test_hyperpriors_that_do_not_fit_are_refused(hyperpriors, error, message):
    with pytest.raises(error, match=message):
        nb.numpyro_model(PRIOR, data_of(), hyperpriors=hyperpriors)
    with pytest.raises(error, match=message):
        nb.FullBayes(hyperpriors).fit(PRIOR, data_of(), key=KEY)


def test_settings_outside_their_range_are_refused(law):
    for name, value in (("num_samples", 3), ("num_warmup", 0), ("num_chains", 0)):
        with pytest.raises(ConfigurationError, match=f"{name} must be at least .; got {value}"):
            nb.FullBayes({"ridge": RIDGE}, **{name: value})
    with pytest.raises(ConfigurationError, match="holds 600 draws, 601 were asked"):
        law.sample(KEY, NEW, 601)
    with pytest.raises(ConfigurationError, match="holds 600 draws, 0 were asked"):
        law.sample_marginals(KEY, NEW, 0)
    with pytest.raises(RidgeError, match="infinitely wide"):
        nb.FullBayes({"ridge": RIDGE}).fit(nb.NTKPrior(NETWORK, ridge=0.0), data_of(), key=KEY)


# --- derivatives ----------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("names", [("ridge",), ("ridge", "weight_std", "bias_std", "mean")])
def test_the_factors_derivatives_are_the_same_by_both_ways_of_taking_them(depth, names):
    rng = np.random.default_rng(0)
    features, weights = (jnp.asarray(rng.standard_normal(shape)) for shape in ((9, 3), (9, 9)))
    prior = nb.NTKPrior(nb.networks.mlp(depth=depth, bias_std=0.3), ridge=0.2)
    problem = Problem.build(prior, nb.Dataset(np.asarray(features), np.arange(9) % 2), None)
    values = {name: value_of(prior, name) for name in names}

    def forwards(values):
        return jnp.sum(weights * factor_at(problem, values))

    def backwards(values):
        return jnp.sum(weights * factor(with_values(prior, values), features))

    for derivative in (jax.grad, jax.hessian, jax.jacfwd):
        expected, found = (derivative(function)(values) for function in (backwards, forwards))
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-8, atol=1e-9), found, expected)


@pytest.mark.filterwarnings("ignore::ntkbayes.errors.ConvergenceWarning")
def test_chains_side_by_side_with_a_bar_are_those_in_threads_without_one():
    in_turn, at_once = (
        fit(num_samples=5, num_warmup=20, progress=progress) for progress in (False, True)
    )
    np.testing.assert_allclose(at_once.values["ridge"], in_turn.values["ridge"], rtol=1e-6)
    np.testing.assert_allclose(at_once.whitened, in_turn.whitened, rtol=1e-6, atol=1e-6)
