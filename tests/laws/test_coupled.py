"""Laws whose kernel couples the outputs: that of a finite network, formed or known by products."""

import gc
import weakref
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import gp_classification as oracle
from scipy.optimize import minimize

import ntkbayes as nb
from ntkbayes import memory
from ntkbayes.errors import ConfigurationError, ConvergenceError, NotPositiveDefiniteError
from ntkbayes.kernels import (
    EmpiricalKernel,
    Kernel,
    KernelPair,
    ReshapedKernel,
    analytic_kernel,
    jacobian,
)
from ntkbayes.kernels.empirical.ntk import EmpiricalNTK
from ntkbayes.laws.gaussian import posterior
from ntkbayes.linalg import CoupledGram
from ntkbayes.priors.paths import FunctionProcess, TangentProcess
from ntkbayes.priors.prior import _BLOCKS
from ntkbayes.training.subspace import SubspaceNewton

KEY = jax.random.key(3)
NEW = np.array([[0.0, 0.0], [1.5, 0.3], [-1.0, 2.0], [6.0, -6.0]])
RIDGE = 0.3
NETWORK = nb.networks.mlp(depth=1, activation="erf", bias_std=0.5, width=12, num_outputs=3)


def data_of(classes=3, count=15):
    features, labels = oracle.blobs(7, count, classes)
    return nb.Dataset(features, labels, class_names=range(classes))


DATA = data_of()
START = NETWORK.init(KEY, jnp.asarray(DATA.features))


class Spread(Kernel):
    """Another kernel, written as one that couples the outputs: Θ ⊗ I."""

    kernel: Kernel
    size: int

    def _spread(self, pair):
        identity = jnp.eye(self.size)
        return KernelPair(*(jnp.kron(part, identity) for part in pair))

    def cross(self, x1, x2):
        return self._spread(self.kernel.cross(x1, x2))

    def diagonal(self, x):
        def blocks(part):
            return part[:, None, None] * jnp.eye(self.size)[None]

        return KernelPair(*(blocks(part) for part in self.kernel.diagonal(x)))


SHARED = analytic_kernel(nb.networks.mlp(depth=1, weight_std=1.5, bias_std=0.5))


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("ridge", [0.0, RIDGE])
def test_a_kernel_shared_by_the_outputs_gives_the_same_laws_written_as_coupling_them(
    classes, ridge
):
    data = data_of(classes)
    data = data if ridge else data.smooth(0.1)
    size = 1 if classes == 2 else classes
    shared, coupled = (nb.NTKPrior(k, ridge=ridge) for k in (SHARED, Spread(SHARED, size)))
    methods = [nb.MAP(), nb.RandomInit(num_inits=20, tolerance=1e-10)]
    if ridge:
        methods += [nb.Laplace()]
    for method in methods:
        one, other = (method.fit(prior, data, key=KEY) for prior in (shared, coupled))
        np.testing.assert_allclose(one.mean(NEW), other.mean(NEW), atol=1e-7)
        np.testing.assert_allclose(one.covariance(NEW), other.covariance(NEW), atol=1e-7)
        if not isinstance(method, nb.RandomInit):
            joint = one.joint_covariance(NEW), other.joint_covariance(NEW)
            np.testing.assert_allclose(*joint, atol=1e-7)
        np.testing.assert_allclose(one.sample(KEY, NEW, 20), other.sample(KEY, NEW, 20), atol=1e-4)
    if ridge:
        evidence = one.info.log_evidence, other.info.log_evidence
        np.testing.assert_allclose(*evidence, rtol=1e-10)


def test_finite_training_time_is_the_same_written_as_coupling():
    shared, coupled = (nb.NTKPrior(k, ridge=RIDGE) for k in (SHARED, Spread(SHARED, 3)))
    laws = [nb.MAP(training_time=2.0).fit(prior, DATA) for prior in (shared, coupled)]
    np.testing.assert_allclose(laws[0].mean(NEW), laws[1].mean(NEW), atol=1e-6)


# --- the generalised Gauss–Newton Laplace of a trained network ------------------------------------


def flat_network(network, start):
    flat, unravel = jax.flatten_util.ravel_pytree(start)
    return flat, unravel, lambda theta, x: network.apply(unravel(theta), jnp.asarray(x))


@pytest.fixture(scope="module")
def trained():
    """The optimum of the loss (1), by SciPy's trust region with exact derivatives."""
    start, unravel, apply = flat_network(NETWORK, START)

    def loss(theta):
        cross_entropy = -jnp.sum(DATA.targets * jax.nn.log_softmax(apply(theta, DATA.features)))
        return cross_entropy + RIDGE / 2 * jnp.sum((theta - start) ** 2)

    found = minimize(
        jax.jit(loss),
        np.asarray(start),
        jac=jax.jit(jax.grad(loss)),
        hess=jax.jit(jax.hessian(loss)),
        method="trust-exact",
        options={"gtol": 1e-11, "maxiter": 500},
    )
    assert np.abs(jax.grad(loss)(found.x)).max() < 1e-9
    return jnp.asarray(found.x), unravel, apply


def test_laplace_at_a_trained_network_is_its_gauss_newton_laplace_in_weight_space(trained):
    theta, unravel, apply = trained
    prior = nb.linearise(NETWORK, unravel(theta), ridge=RIDGE, anchor=START)
    law = nb.Laplace().fit(prior, DATA)
    jacobian, at_new = (np.asarray(jax.jacrev(apply)(theta, x)) for x in (DATA.features, NEW))
    p = np.asarray(jax.nn.softmax(apply(theta, DATA.features)))
    precision = RIDGE * np.eye(len(theta))
    for j, q in zip(jacobian, p, strict=True):
        precision += j.T @ (np.diag(q) - np.outer(q, q)) @ j
    expected = np.einsum("mcp,pq,mdq->mcd", at_new, np.linalg.inv(precision), at_new)
    np.testing.assert_allclose(law.mean(NEW), apply(theta, NEW), atol=1e-8)
    np.testing.assert_allclose(law.covariance(NEW), expected, atol=1e-8)
    evidence = (
        np.sum(DATA.targets * np.log(p))
        - RIDGE / 2 * np.sum((np.asarray(theta) - jax.flatten_util.ravel_pytree(START)[0]) ** 2)
        + len(theta) / 2 * np.log(RIDGE)
        - np.linalg.slogdet(precision)[1] / 2
    )
    np.testing.assert_allclose(law.info.log_evidence, evidence, rtol=1e-8)


# --- formed, and known by products ---------------------------------------------------------------


@pytest.mark.parametrize("max_rows", [None, 0], ids=["formed", "by products"])
def test_the_kernel_of_a_network_is_evaluated_once_for_the_laws_that_exist(max_rows, monkeypatch):
    monkeypatch.setattr("ntkbayes.priors.prior._RECENT_NUMBERS", 0)
    prior = nb.NTKPrior(EmpiricalKernel(NETWORK, START, max_rows=max_rows), ridge=RIDGE)
    law = nb.MAP().fit(prior, DATA)
    wider = nb.Laplace().fit(prior.with_ridge(2.0), DATA)
    assert wider.problem.gram.ntk is law.problem.gram.ntk
    assert prior.gram(NEW).ntk is not law.problem.gram.ntk
    other = nb.NTKPrior(EmpiricalKernel(NETWORK, START, max_rows=max_rows), ridge=RIDGE)
    assert other.gram(DATA.features).ntk is not law.problem.gram.ntk
    alone = nb.Laplace().fit(other, DATA)
    expected = nb.Laplace().fit(other.with_ridge(2.0), DATA)
    del alone
    np.testing.assert_allclose(wider.mean(NEW), expected.mean(NEW), atol=1e-12)
    held = weakref.ref(law.problem.gram.ntk)
    del law, wider
    gc.collect()
    assert held() is None


@pytest.mark.parametrize("numbers", [2**25, 0], ids=["small", "large"])
def test_laws_form_the_kernel_to_new_points_once_and_predict_the_same(numbers, monkeypatch):
    monkeypatch.setattr("ntkbayes.priors.prior._RECENT_NUMBERS", numbers)
    formed = []
    matrix = EmpiricalNTK.matrix

    def counted(ntk, x1, x2=None):
        formed.append(x2 is not None)
        return matrix(ntk, x1, x2)

    monkeypatch.setattr(EmpiricalNTK, "matrix", counted)
    kernels = [EmpiricalKernel(NETWORK, START) for _ in range(3)]
    methods = [nb.Laplace(), nb.RandomInit(num_inits=20)]
    new = nb.Dataset(NEW, np.arange(len(NEW)) % 3, class_names=DATA.class_names)

    def predictions(method, kernel):
        law = method.fit(nb.NTKPrior(kernel, ridge=RIDGE), DATA, key=jax.random.key(0))
        return nb.predict(law, new, key=jax.random.key(1), num_draws=20)

    together = [predictions(method, kernels[0]) for method in methods]
    assert sum(formed) == 1 if numbers else sum(formed) > 1
    assert len(_BLOCKS.of(kernels[0])) <= 3  # what is gone is forgotten
    for one, method, kernel in zip(together, methods, kernels[1:], strict=True):
        alone = predictions(method, kernel)
        for name in ("logits", "mean", "variance"):
            np.testing.assert_array_equal(getattr(one, name), getattr(alone, name), err_msg=name)


def test_a_kernel_evaluated_within_a_program_is_not_kept_for_later():
    prior = nb.NTKPrior(EmpiricalKernel(NETWORK, START), ridge=RIDGE)
    inside = jax.jit(lambda v: prior.gram(DATA.features).ntk @ v)(jnp.asarray(DATA.targets))
    outside = prior.gram(DATA.features).ntk @ jnp.asarray(DATA.targets)
    np.testing.assert_allclose(inside, outside, rtol=1e-12)


@pytest.mark.parametrize("width", [12, 2], ids=["regular", "fewer parameters than logits"])
@pytest.mark.parametrize("num_draws", [80, 5000], ids=["by functions", "by the factor"])
def test_draws_have_the_posteriors_moments_however_they_are_drawn(width, num_draws):
    network = nb.networks.mlp(depth=1, activation="erf", bias_std=0.5, width=width, num_outputs=3)
    prior = nb.linearise(network, network.init(KEY, jnp.asarray(DATA.features)), ridge=RIDGE)
    law = nb.Laplace().fit(prior, DATA)
    process = law.process_for(num_draws)
    assert isinstance(process, FunctionProcess if num_draws == 80 else TangentProcess)
    draws = np.asarray(law.sample(KEY, NEW, num_draws)).reshape(num_draws, -1)
    mean, covariance = np.asarray(law.mean(NEW)).ravel(), np.asarray(law.joint_covariance(NEW))
    variance = np.diag(covariance)
    off = (draws.mean(axis=0) - mean) / np.sqrt(variance / num_draws)
    assert np.abs(off).max() < 4.5
    error = np.sqrt((np.outer(variance, variance) + covariance**2) / num_draws)
    assert (np.abs(np.cov(draws.T) - covariance) / error).max() < 5


def test_a_factor_that_does_not_exist_leaves_the_draws_to_functions(monkeypatch):
    law = nb.Laplace().fit(nb.linearise(NETWORK, START, ridge=RIDGE), DATA)
    assert isinstance(law.process_for(1000), TangentProcess)
    few = law.sample(KEY, NEW, 5)

    def fail(self, what="the matrix", *, divisor=1.0):
        raise NotPositiveDefiniteError(what)

    monkeypatch.setattr(CoupledGram, "factor", fail)
    law = nb.Laplace().fit(nb.linearise(NETWORK, START, ridge=RIDGE), DATA)
    assert isinstance(law.process_for(1000), FunctionProcess)
    np.testing.assert_array_equal(law.sample(KEY, NEW, 5), few)


@pytest.fixture(scope="module", params=["MAP", "Laplace", "random init"])
def both_ways(request):
    method = {
        "MAP": nb.MAP(tolerance=1e-9),
        "Laplace": nb.Laplace(tolerance=1e-9),
        "random init": nb.RandomInit(num_inits=10),
    }[request.param]
    laws = []
    for max_rows in (5000, 1):
        prior = nb.NTKPrior(EmpiricalKernel(NETWORK, START, max_rows=max_rows), ridge=RIDGE)
        laws.append(method.fit(prior, DATA, key=KEY))
    return request.param, *laws


def test_products_alone_give_the_law_of_the_formed_kernel(both_ways):
    name, formed, iterated = both_ways
    np.testing.assert_allclose(formed.mean(NEW), iterated.mean(NEW), atol=1e-6)
    np.testing.assert_allclose(formed.covariance(NEW), iterated.covariance(NEW), atol=1e-6)
    if name != "random init":
        joint = formed.joint_covariance(NEW), iterated.joint_covariance(NEW)
        np.testing.assert_allclose(*joint, atol=1e-6)
    draws = [law.sample(KEY, NEW, 8) for law in (formed, iterated)]
    np.testing.assert_allclose(*draws, atol=1e-6)


@pytest.fixture
def single_precision():
    """The network as its user has it, and inputs of it."""
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), START)
    return params, jnp.asarray(DATA.features)


@pytest.mark.parametrize("num_bytes", [1, 2000, 2**28])
def test_products_are_those_of_the_matrix_however_many_points_go_through_at_once(
    single_precision, monkeypatch, num_bytes
):
    monkeypatch.setattr(jacobian, "PASS_BYTES", num_bytes)
    params, x = single_precision
    formed, products = (EmpiricalKernel(NETWORK, params, max_rows=rows) for rows in (5000, 0))
    v = jax.random.normal(KEY, (4, len(x), 3))
    given, other = x[:7], NEW.astype(float)
    for left, right in ((given, given), (jnp.asarray(other), given)):
        matrix = nb.NTKPrior(formed, ridge=RIDGE).cross(left, right).ntk
        operator = nb.NTKPrior(products, ridge=RIDGE).cross(left, right).ntk
        np.testing.assert_allclose(operator @ v[:, :7], matrix @ v[:, :7], rtol=0, atol=1e-12)
    own = nb.NTKPrior(products, ridge=RIDGE).gram(given).ntk
    matrix = nb.NTKPrior(formed, ridge=RIDGE).gram(given).ntk
    np.testing.assert_allclose(own.variances, matrix.variances, rtol=1e-12)
    np.testing.assert_allclose(own.diagonal_blocks(3), matrix.diagonal_blocks(3), atol=1e-12)
    fast = own.fast(jnp.float64)
    error = np.abs(np.asarray(fast @ v[:, :7] - matrix @ v[:, :7])).max()
    assert 1e-10 < error < 1e-4  # in the network's own precision


@pytest.mark.parametrize("factor_dtype", [jnp.float32, jnp.float64])
def test_products_in_single_precision_lead_to_the_same_optimum(single_precision, factor_dtype):
    params, _ = single_precision
    method = nb.MAP(tolerance=1e-9, factor_dtype=factor_dtype)
    formed, iterated = (
        method.fit(nb.NTKPrior(EmpiricalKernel(NETWORK, params, max_rows=rows), ridge=RIDGE), DATA)
        for rows in (5000, 0)
    )
    np.testing.assert_allclose(formed.mean(NEW), iterated.mean(NEW), atol=1e-8)
    error = np.abs(np.asarray(formed.logits - iterated.logits)).max()
    assert error <= formed.info.logit_error + iterated.info.logit_error
    assert iterated.info.num_iterations <= 45  # directions; there are 45 logits


def test_training_by_products_that_may_take_too_few_steps_says_how_far_it_came():
    prior = nb.NTKPrior(EmpiricalKernel(NETWORK, START, max_rows=0), ridge=RIDGE)
    objective = nb.MAP().problem(prior, DATA, None).objective
    solver = SubspaceNewton(max_iterations=3)
    with pytest.raises(ConvergenceError, match=r"training leaves logits off by .* after 3 iter"):
        solver.solve(objective, jnp.zeros((2, 15, 3)))


def test_a_gram_is_formed_by_default_where_half_of_the_memory_holds_its_laws(monkeypatch):
    kernel = EmpiricalKernel(NETWORK, START)
    monkeypatch.setattr(memory, "total", lambda: 2 * 8 * 4 * 45**2)
    assert kernel.is_formed(45)
    assert not kernel.is_formed(46)


def test_memory_by_products_grows_with_the_draws_that_are_trained():
    prior = nb.NTKPrior(EmpiricalKernel(NETWORK, START, max_rows=1), ridge=RIDGE)
    few, many = (nb.RandomInit(num_inits=size).memory(prior, DATA) for size in (2, 2000))
    assert "random init, 15 points, 3 outputs, by products: " in str(many)
    assert many.parts["draws"] == 1000 * few.parts["draws"] == 2000 * 10 * 8 * 45


def test_evidence_is_unknown_without_a_factor(both_ways):
    name, formed, iterated = both_ways
    if name == "Laplace":
        assert np.isfinite(formed.info.log_evidence)
        assert np.isnan(iterated.info.log_evidence)


def test_draws_are_real_networks_trained_in_the_tangent_space(both_ways):
    name, law, _ = both_ways
    if name != "random init":
        return
    keys = jax.random.split(KEY, 10)
    jacobians = [
        jax.jacrev(lambda theta, x=x: flat_network(NETWORK, START)[2](theta, x))(
            flat_network(NETWORK, START)[0]
        )
        for x in (DATA.features, NEW)
    ]
    ntk, cross = (np.einsum("icp,jdp->icjd", j, jacobians[0]) for j in jacobians)
    for key, alpha, at_new in zip(keys, law.alpha, law.sample(KEY, NEW), strict=True):
        initial = NETWORK.init(key, jnp.asarray(DATA.features))
        f = NETWORK.apply(initial, jnp.asarray(DATA.features)) + np.einsum(
            "icjd,jd->ic", ntk, alpha
        )
        np.testing.assert_allclose(DATA.targets - jax.nn.softmax(f), RIDGE * alpha, atol=1e-7)
        expected = NETWORK.apply(initial, jnp.asarray(NEW)) + np.einsum("icjd,jd->ic", cross, alpha)
        np.testing.assert_allclose(at_new, expected, atol=1e-9)


@pytest.mark.parametrize("max_rows", [10**6, 0])
def test_covariances_by_blocks_of_inputs_are_those_of_all_at_once(max_rows, monkeypatch):
    kernel = EmpiricalKernel(NETWORK, START, max_rows=max_rows)
    law = nb.Laplace().fit(nb.NTKPrior(kernel, ridge=RIDGE), DATA)
    new = np.random.default_rng(5).standard_normal((7, NEW.shape[1]))
    whole = np.asarray(law.covariance(new))
    columns = 3 * DATA.targets.size  # numbers in the columns of one input
    monkeypatch.setattr(posterior, "_COLUMN_NUMBERS", (3 if max_rows else 24) * columns)
    monkeypatch.setattr(posterior, "_COLUMN_SHARE", 0.0)
    np.testing.assert_allclose(law.covariance(new), whole, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(law.covariance(new[:3]), whole[:3], rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("max_rows", [10**6, 0])
def test_the_gram_of_a_kernel_that_wraps_a_networks_is_formed_where_that_is(max_rows):
    class Wrapped(Kernel):
        kernel: Kernel
        compiled: ClassVar[bool] = False

        def cross(self, x1, x2):
            return self.kernel.cross(x1, x2)

        def diagonal(self, x):
            return self.kernel.diagonal(x)

    own = EmpiricalKernel(NETWORK, START, max_rows=max_rows)
    grams = [nb.NTKPrior(k, ridge=RIDGE).gram(DATA.features).ntk for k in (own, Wrapped(own))]
    assert [isinstance(gram, CoupledGram) for gram in grams] == [max_rows > 0] * 2
    np.testing.assert_allclose(*grams, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("num_functions", [1, 3, 4])
def test_a_few_functions_at_new_inputs_need_no_cross_kernel(num_functions, monkeypatch):
    formed, form = [], EmpiricalNTK.matrix

    def matrix(self, x1, x2=None):
        formed.append(x2 is not None)
        return form(self, x1, x2)

    monkeypatch.setattr(EmpiricalNTK, "matrix", matrix)
    kernel = EmpiricalKernel(NETWORK, START, max_rows=10**6)
    law = nb.MAP().fit(nb.NTKPrior(kernel, ridge=RIDGE), DATA)
    alpha = law.alpha[None] * jnp.arange(1.0, 1 + num_functions)[:, None, None]
    with jax.disable_jit():
        found = law.trained(jnp.asarray(NEW), alpha)
    assert any(formed) == (num_functions > 3)
    cross = form(kernel.tangent, NEW, DATA.features)
    expected = np.einsum("mn,sn->sm", cross, alpha.reshape(num_functions, -1))
    np.testing.assert_allclose(found.reshape(num_functions, -1), expected, rtol=1e-12, atol=1e-12)


def test_laplace_draws_in_the_tangent_space_have_its_moments():
    law = nb.Laplace().fit(nb.NTKPrior(EmpiricalKernel(NETWORK, START), ridge=RIDGE), DATA)
    draws = np.asarray(law.sample(KEY, NEW, 4000)).reshape(4000, -1)
    centred = draws - np.asarray(law.mean(NEW)).reshape(-1)
    for i in range(len(NEW)):
        part = centred[:, 3 * i : 3 * i + 3]
        covariance = np.asarray(law.covariance(NEW))[i]
        products = part[:, :, None] * part[:, None, :]
        errors = (products.mean(0) - covariance) / (products.std(0) / np.sqrt(4000))
        assert np.abs(errors).max() < 4.5


def test_nuts_with_coupled_outputs_is_gaussian_process_regression_for_real_targets():
    rng = np.random.default_rng(0)
    data = nb.Dataset.real(DATA.features[:6], rng.standard_normal((6, 3)))
    prior = nb.NTKPrior(EmpiricalKernel(NETWORK, START), ridge=RIDGE)
    likelihood = nb.likelihood.Normal(0.5)
    law = nb.NUTS(num_samples=1000, num_warmup=300, num_chains=2).fit(
        prior, data, key=KEY, likelihood=likelihood
    )
    exact = nb.Laplace().fit(prior, data, likelihood=likelihood)
    variance = np.asarray(exact.variance(NEW))
    effective = law.info.min_bulk_ess
    assert effective > 200
    errors = (np.asarray(law.mean(NEW)) - np.asarray(exact.mean(NEW))) / np.sqrt(
        variance / effective
    )
    assert np.abs(errors).max() < 4.5
    ratio = np.asarray(law.variance(NEW)) / variance
    squares = 0.3 * law.num_draws  # trajectories turn to the other side: squares mix slower than f
    assert np.abs(ratio - 1).max() < 4.5 * np.sqrt(2 / squares)


def test_training_without_ridge_reproduces_the_targets_and_keeps_the_flat_directions():
    # THEORY (3): with coupled outputs the mean over classes moves, by what Θ couples.
    data = data_of().smooth(0.1)
    wide = nb.networks.mlp(depth=1, activation="erf", bias_std=0.5, width=64, num_outputs=3)
    start = wide.init(KEY, jnp.asarray(data.features))
    prior = nb.linearise(wide, start, ridge=0.0)
    law = nb.MAP().fit(prior, data)
    trained = np.asarray(law.mean(data.features))
    np.testing.assert_allclose(jax.nn.softmax(trained), data.targets, atol=1e-7)
    np.testing.assert_allclose(np.sum(law.alpha, axis=1), 0, atol=1e-7)


class Stretched(Kernel):
    """The kernel of a user who wraps another, as in docs/howto/models.md."""

    kernel: Kernel
    length: float

    def cross(self, x1, x2):
        return self.kernel.cross(x1 / self.length, x2 / self.length)

    def diagonal(self, x):
        return self.kernel.diagonal(x / self.length)


def reshaped(kernel):
    return ReshapedKernel(kernel, nb.networks.reshaped(NETWORK, (2,)))


@pytest.mark.parametrize("wrap", [lambda kernel: Stretched(kernel, 1.0), reshaped])
@pytest.mark.parametrize("method", [nb.MAP(tolerance=1e-9), nb.Laplace(tolerance=1e-9)])
def test_a_kernel_that_wraps_one_known_by_products_is_known_by_them_too(method, wrap):
    kernel = EmpiricalKernel(NETWORK, START, max_rows=1)
    one, other = (nb.NTKPrior(k, ridge=RIDGE) for k in (kernel, wrap(kernel)))
    with pytest.raises(ConfigurationError, match="max_rows"):
        other.gram(DATA.features).ntk.factor()
    laws = [method.fit(prior, DATA) for prior in (one, other)]
    np.testing.assert_allclose(laws[0].mean(NEW), laws[1].mean(NEW), atol=1e-9)
    np.testing.assert_allclose(laws[0].covariance(NEW), laws[1].covariance(NEW), atol=1e-9)


def test_initial_functions_that_a_kernel_neither_knows_nor_draws_are_refused():
    prior = nb.NTKPrior(Stretched(EmpiricalKernel(NETWORK, START), 2.0), ridge=RIDGE)
    with pytest.raises(ConfigurationError, match="Stretched knows neither the covariance K"):
        nb.RandomInit(num_inits=2).fit(prior, DATA, key=KEY)
    with pytest.raises(ConfigurationError, match="Stretched knows neither the covariance K"):
        prior.sample_initial(KEY, NEW, num_draws=2, num_outputs=3)


# --- refusals ------------------------------------------------------------------------------------


def test_a_network_with_other_outputs_than_the_data_is_refused():
    prior = nb.NTKPrior(EmpiricalKernel(NETWORK, START), ridge=RIDGE)
    with pytest.raises(
        ConfigurationError, match="the network has 3 outputs, but Bernoulli takes 1"
    ):
        nb.MAP().fit(prior, data_of(2))


def test_the_first_order_law_of_a_finite_network_is_refused():
    prior = nb.NTKPrior(EmpiricalKernel(NETWORK, START), ridge=RIDGE)
    with pytest.raises(ConfigurationError, match="use RandomInit, which draws them"):
        nb.FirstOrder().fit(prior, DATA)


def test_the_first_order_law_of_a_kernel_written_as_coupling_is_refused():
    with pytest.raises(ConfigurationError, match="a kernel that the outputs share"):
        nb.FirstOrder().fit(nb.NTKPrior(Spread(SHARED, 3), ridge=RIDGE), DATA)


def test_laws_that_need_a_factor_refuse_a_kernel_known_by_products():
    kernel = EmpiricalKernel(NETWORK, START, max_rows=1)
    with pytest.raises(ConfigurationError, match="45 rows, more than the kernel's max_rows"):
        nb.NUTS().fit(nb.NTKPrior(kernel, ridge=RIDGE), DATA, key=KEY)
    with pytest.raises(ConfigurationError, match="has 45 rows: use a ridge > 0"):
        nb.MAP().fit(nb.NTKPrior(kernel, ridge=0.0), data_of().smooth(0.1))
