# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Bring your own network
#
# You have a network in [Equinox](https://docs.kidger.site/equinox/) or
# [Flax](https://flax.readthedocs.io/) and want to know how sure to be of it. That is two
# questions, answered by two laws.
#
# - *What do the data leave open?* Train the network, linearise it where training ended, and take
#   the Laplace posterior of that.
# - *What would another initialisation have given?* The random-init law of the network linearised at
#   the start. It speaks for the real network only if the network is *lazy*, so first ask for a
#   certificate.

# %%
# %matplotlib inline
# %config InlineBackend.figure_formats = ["retina"]
import jax

jax.config.update("jax_enable_x64", True)

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import optax

import ntkbayes as nb
from ntkbayes import figures
from ntkbayes.bridges.equinox import from_equinox
from ntkbayes.predictions import surface

keys = iter(jax.random.split(jax.random.key(0), 20))  # one for each use
train, test = nb.datasets.load("moons").split(next(keys), test_share=0.6)
RIDGE = 0.1

# %% [markdown]
# ## An Equinox network
#
# In the standard parameterisation, one output for two classes. `from_equinox` takes the function
# that builds it.


# %%
def make(key):
    return eqx.nn.MLP(2, 1, width_size=64, depth=2, activation=jnp.tanh, key=key)


network = from_equinox(make)
module = make(next(keys))


# %% [markdown]
# ## Train it as you always do
#
# With any optimiser, on the loss whose posterior you want: here the cross-entropy summed over
# points, and weight decay, which is the prior N(0, I/ridge) of the weights.


# %%
def loss(module, x, y):
    logits = jax.vmap(module)(x)[:, 0]
    weights = jax.tree.leaves(eqx.filter(module, eqx.is_inexact_array))
    decay = RIDGE / 2 * sum(jnp.sum(w**2) for w in weights)
    return jnp.sum(optax.sigmoid_binary_cross_entropy(logits, y)) + decay


optimizer = optax.adam(3e-3)


@eqx.filter_jit
def fit(module, x, y, num_steps=3000):
    params, static = eqx.partition(module, eqx.is_inexact_array)

    def step(carry, _):
        params, state = carry
        value, slope = jax.value_and_grad(lambda p: loss(eqx.combine(p, static), x, y))(params)
        updates, state = optimizer.update(slope, state, params)
        return (optax.apply_updates(params, updates), state), value

    (params, _), values = jax.lax.scan(step, (params, optimizer.init(params)), length=num_steps)
    return eqx.combine(params, static), values


trained, values = fit(module, jnp.asarray(train.features), jnp.asarray(train.targets[:, 1]))
print(f"loss: {values[0]:.1f}, {values[-500]:.3f} after 2500 steps, {values[-1]:.3f} after 3000")

# %% [markdown]
# ## Laplace at the trained parameters
#
# `nb.linearise` turns the network as it now is into a prior. The anchor is where the ridge pulls:
# for weight decay, 0. Whether the network is lazy does not matter here.

# %%
end = network.params_of(trained)
zero = jax.tree.map(jnp.zeros_like, end)
here = nb.linearise(network, end, ridge=RIDGE, anchor=zero)
laws = {
    "as trained": nb.MAP().fit(here, train),
    "Laplace": nb.Laplace().fit(here, train),
}
gap = laws["as trained"].mean(test.features)[:, 0] - jax.vmap(trained)(test.features)[:, 0]
print(f"MAP of the linearisation less the network: {np.abs(gap).max():.3f} in a logit at most")

# %% [markdown]
# Keep this check: at the end of training the linearisation has nothing left to learn,
# so its MAP is the trained network. If it is not, training had not ended, or loss, ridge and
# anchor do not match the network's.
#
# ## Is it lazy?

# Asked of the loss that was trained, so with the anchor at zero:

# %%
sizes = {"num_seeds": 2, "num_steps": 1000, "max_points": 24, "num_probes": 8}
moons = nb.datasets.load("moons")
print(nb.lazy.certify(network, moons, ridge=RIDGE, anchor="zero", key=next(keys), **sizes))

# %% [markdown]
# It is not. The random-init law would describe something other than this network, for two reasons.
#
# Weight decay is not the ridge of the theory. It pulls the weights towards zero, and the kernel with
# them, however wide the network is; the ridge of kernel laws pulls towards θ0, and leaves a wide network
# where it started. The pull towards θ0 is the default of `certify`, `FiniteEnsemble` and `ntkbayes
# lazy`; in your own training loop it is `w - w0` in place of `w`.
#
# The other reason is the parameterisation: with standard normal weights, divided by the square root
# of the fan-in in the forward pass, the same layers are much lazier. In Equinox that is a layer of
# three lines.


# %%
class Dense(eqx.Module):
    weight: jax.Array

    def __init__(self, fan_in, fan_out, key):
        self.weight = jax.random.normal(key, (fan_out, fan_in))

    def __call__(self, x):
        return 1.5 * self.weight @ x / jnp.sqrt(self.weight.shape[1])


class Wide(eqx.Module):
    layers: list

    def __init__(self, key, width=256):
        sizes = (2, width, width, 1)
        keys = jax.random.split(key, 3)
        self.layers = [Dense(a, b, k) for a, b, k in zip(sizes[:-1], sizes[1:], keys, strict=True)]

    def __call__(self, x):
        first, second, readout = self.layers
        return readout(jnp.tanh(second(jnp.tanh(first(x)))))


wide = from_equinox(Wide)
certificate = nb.lazy.certify(wide, moons, ridge=0.5, key=next(keys), **sizes)  # towards θ0
print(certificate)

# %% [markdown]
# ## Another initialisation
#
# With that certificate the kernel laws speak for the network, trained with a ridge towards θ0.
# `EmpiricalKernel` is its NTK at one initialisation; initial functions are the network's own, at fresh
# ones. (Not `nb.linearise`: the mean of that prior is the network's function, which starting from
# another would have to subtract.)

# %%
params = wide.init(next(keys), jnp.asarray(train.features))
prior = nb.NTKPrior(nb.kernels.EmpiricalKernel(wide, params), ridge=0.5)
own = {
    "random init": nb.RandomInit(num_inits=200).fit(prior, train, key=next(keys)),
    "Laplace": nb.Laplace().fit(prior, train),
}
print(f"every draw solved to {own['random init'].info.worst_residual:.1e} in probability")

# %% [markdown]
# Is that what real training gives? `FiniteEnsemble` trains the network itself, from 16
# initialisations. Each has its own NTK, so for a fair comparison we add the law under the
# kernel of another initialisation.

# %%
own["16 real networks"] = nb.FiniteEnsemble(network=wide, num_networks=16).fit(
    prior, train, key=next(keys)
)
others = wide.init(next(keys), jnp.asarray(train.features))
elsewhere = nb.NTKPrior(nb.kernels.EmpiricalKernel(wide, others), ridge=0.5)
own["random init, other kernel"] = nb.RandomInit(num_inits=200).fit(
    elsewhere, train, key=next(keys)
)
comparison = nb.compare(own, test, key=next(keys), reference="random init")
comparison.table()[["accuracy", "nll", "ece", "variance_ratio", "tv", "energy"]].round(3)

# %% [markdown]
# The real networks spread as the law predicts, and their probabilities are as close to it as those of
# the law under the other kernel. The energy coefficient compares means relative to spreads, and these
# spreads are small: what it sees is mostly that, at a width of 256, the kernel itself depends on
# the initialisation. Laplace has forty times the variance. It answers the other question.

# %%
planes = {
    name: surface(own[name], train, key=next(keys), resolution=30, num_draws=draws)
    for name, draws in {"random init": 200, "Laplace": 200, "16 real networks": 16}.items()
}
figures.surfaces(nb.Comparison(comparison.predictions, "random init", surfaces=planes))

# %% [markdown]
# ## A Flax network
#
# The same in one line, with `from_nnx` for NNX modules and `from_linen` for Linen. Everything that is
# not a parameter, such as batch statistics, is fixed; dropout is off. For a trained module with
# its own state see [the bridges](../api/bridges.md).

# %%
from flax import nnx

from ntkbayes.bridges.flax import from_nnx


class Perceptron(nnx.Module):
    def __init__(self, rngs):
        self.hidden = nnx.Linear(4, 32, rngs=rngs)
        self.readout = nnx.Linear(32, 3, rngs=rngs)

    def __call__(self, x):
        return self.readout(nnx.tanh(self.hidden(x)))


irises, held_out = nb.datasets.load("iris").split(next(keys))
flax_network = from_nnx(Perceptron)
theta = flax_network.init(next(keys), jnp.asarray(irises.features))
flax_prior = nb.NTKPrior(nb.kernels.EmpiricalKernel(flax_network, theta), ridge=0.1)
flax_laws = {
    "random init": nb.RandomInit(num_inits=100).fit(flax_prior, irises, key=next(keys)),
    "Laplace": nb.Laplace().fit(flax_prior, irises),
}
nb.compare(flax_laws, held_out, key=next(keys)).table()[["accuracy", "nll", "ece"]].round(3)

# %% [markdown]
# Three classes, so three outputs, which the kernel couples. Without a certificate, as here, these
# laws describe the kernel machine, whatever the network would have done.
