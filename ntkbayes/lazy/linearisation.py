"""Networks linearised at their own start, trained by the steps of the networks themselves (THEORY 1).

With Θ0 the empirical NTK at θ0 and f_lin(x) = f0(x) + Θ0(x, X) α, a step of size η on the loss is

    α ← α − η (ridge α − r(f_lin(X)))                                        r: residual, Y − σ(f)

so that what is left between the two is laziness alone, not the time at which they stopped. A ridge that
pulls towards zero adds −s J(x) θ0, with 1 − s ← (1 − η ridge)(1 − s): the linearised weights decay too.

Shapes: K seeds, n training points, m test points, C logits.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ntkbayes.kernels.empirical.ntk import EmpiricalNTK
from ntkbayes.lazy.points import Points
from ntkbayes.likelihood import Likelihood
from ntkbayes.networks import Network, Params
from ntkbayes.networks.programs import channels_last
from ntkbayes.training.networks import Anchor, Trainer

Blocks = Float[Array, "seeds n1 n2 classes classes"]


class Linearisation(eqx.Module):
    """K networks linearised at their own θ0, at training and test points.

    Attributes:
        likelihood, ridge, step_size: those of the networks' training.
        targets: (n, C).
        train_initial: initial function at the training points.
        test_initial: the same at the test points.
        train_decay: J θ0 at the training points if the ridge pulls towards zero, else 0.
        test_decay: the same at the test points.
        train_ntk: Θ0 between training points, [k, i, j, c, d].
        test_ntk: Θ0 between test and training points.
        alpha: α.
        decayed: s, from 0 to 1.
    """

    likelihood: Likelihood
    ridge: Float[Array, ""]
    step_size: Float[Array, ""]
    targets: Float[Array, "n classes"]
    train_initial: Float[Array, "seeds n classes"]
    test_initial: Float[Array, "seeds m classes"]
    train_decay: Float[Array, "seeds n classes"]
    test_decay: Float[Array, "seeds m classes"]
    train_ntk: Float[Array, "seeds n n classes classes"]
    test_ntk: Float[Array, "seeds m n classes classes"]
    alpha: Float[Array, "seeds n classes"]
    decayed: Float[Array, ""]

    @classmethod
    def build(
        cls,
        trainer: Trainer,
        params: Params,
        points: Points,
        *,
        train_initial: Float[Array, "seeds n classes"],
        test_initial: Float[Array, "seeds m classes"],
    ) -> "Linearisation":
        """At the start of training, where α = 0 and s = 0."""
        everywhere = jnp.concatenate([points.train, points.test])
        size, dtype = len(points.train), points.train.dtype
        ntk = ntk_between(trainer.network, params, everywhere, points.train)
        decay = jnp.zeros_like(jnp.concatenate([train_initial, test_initial], axis=1))
        if trainer.anchor == Anchor.ZERO:
            decay = _tangent_along(trainer.network, params, everywhere)
        return cls(
            likelihood=trainer.likelihood,
            ridge=jnp.asarray(trainer.ridge, dtype),
            step_size=jnp.asarray(trainer.step_size, dtype),
            targets=points.targets,
            train_initial=train_initial,
            test_initial=test_initial,
            train_decay=decay[:, :size],
            test_decay=decay[:, size:],
            train_ntk=ntk[:, :size],
            test_ntk=ntk[:, size:],
            alpha=jnp.zeros_like(train_initial),
            decayed=jnp.zeros((), dtype),
        )

    @eqx.filter_jit
    def advance(self, num_steps: Int[Array, ""]) -> "Linearisation":
        """After that many more steps of gradient descent."""
        size = self.targets.size
        # One matrix a seed, (n C, n C): the loop below is a matrix–vector product a step.
        gram = jnp.moveaxis(self.train_ntk, 3, 2).reshape(-1, size, size)
        residual = jax.vmap(self.likelihood.residual, in_axes=(None, 0))

        def step(_: object, carry: tuple[Array, Array]) -> tuple[Array, Array]:
            alpha, decayed = carry
            moved = jnp.einsum("kij,kj->ki", gram, alpha.reshape(-1, size)).reshape(alpha.shape)
            logits = self.train_initial - decayed * self.train_decay + moved
            slope = self.ridge * alpha - residual(self.targets, logits).astype(alpha.dtype)
            left = 1 - self.step_size * self.ridge
            return alpha - self.step_size * slope, 1 - left * (1 - decayed)

        alpha, decayed = jax.lax.fori_loop(0, num_steps, step, (self.alpha, self.decayed))
        return eqx.tree_at(lambda tree: (tree.alpha, tree.decayed), self, (alpha, decayed))

    @property
    def train_logits(self) -> Float[Array, "seeds n classes"]:
        """f_lin at the training points."""
        moved = jnp.einsum("kijcd,kjd->kic", self.train_ntk, self.alpha)
        return self.train_initial - self.decayed * self.train_decay + moved

    @property
    def test_logits(self) -> Float[Array, "seeds m classes"]:
        """f_lin at the test points."""
        moved = jnp.einsum("kijcd,kjd->kic", self.test_ntk, self.alpha)
        return self.test_initial - self.decayed * self.test_decay + moved


@eqx.filter_jit
def ntk_between(
    network: Network, params: Params, x1: Float[Array, "n1 ..."], x2: Float[Array, "n2 ..."]
) -> Blocks:
    """The empirical NTK of each network, [k, i, j, c, d]."""
    # One seed after another: the memory of one kernel, not of K.
    return jax.lax.map(lambda theta: EmpiricalNTK(network, theta).full(x1, x2), params)


@eqx.filter_jit
def _tangent_along(
    network: Network, params: Params, x: Float[Array, "n ..."]
) -> Float[Array, "seeds n classes"]:
    """J(x; θ0) θ0 of each network."""

    @channels_last
    def along(theta: Params) -> Float[Array, "n classes"]:
        return jax.jvp(lambda p: network.apply(p, x), (theta,), (theta,))[1]

    return jax.lax.map(along, params)
