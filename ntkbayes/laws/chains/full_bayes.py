"""Hyperparameters as part of the posterior: scales, ridge and latent function, sampled together."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from ntkbayes.errors import ConfigurationError
from ntkbayes.laws.chains.hierarchical import (
    HIERARCHICAL_POSTERIOR,
    FullBayesLaw,
    hyperprior_of,
    judged_draws,
)
from ntkbayes.laws.chains.mixing import MixingInfo
from ntkbayes.laws.chains.numpyro_model import NumPyroModel, require_support
from ntkbayes.laws.chains.nuts import tree_depth
from ntkbayes.laws.chains.threads import chain_threads, each_chain, num_threads
from ntkbayes.laws.kind import Kind
from ntkbayes.laws.method import Method
from ntkbayes.laws.problem import Problem
from ntkbayes.linalg import white_noise
from ntkbayes.ranges import Range, real_field, whole_field
from ntkbayes.training.operations import Size, kernels

_TYPICAL_STEPS = 15  # of the integrator per draw
_PRIOR = 2**20  # folded into the key: none of those that NumPyro splits it into


class FullBayesInfo(MixingInfo):
    """Of the chains: of the hyper-parameters and of the logits at the training points.

    Attributes:
        max_rhat, min_bulk_ess, min_tail_ess: as in `MixingInfo`.
        num_divergences: transitions whose energy error exploded; should be 0.
        mean_steps: leapfrog steps per draw.
        mean_accept: acceptance statistic.
    """

    num_divergences: int
    mean_steps: float
    mean_accept: float


class FullBayes(Method[FullBayesLaw[FullBayesInfo]]):
    """No-U-turn sampling of hyper-parameters and whitened latent function together.

    Every gradient differentiates through a Cholesky factor of the Gram matrix, O(n³): for some hundred
    points. The kernel has to be that of a network at infinite width.

    Args:
        hyperpriors: as for `numpyro_model`.
        num_samples: draws kept per chain.
        num_warmup: draws per chain discarded while step size and mass adapt.
        num_chains: chains, run in as many threads as there are cores; in lockstep with a progress bar.
        target_accept: acceptance probability that the step size aims at.
        progress: show NumPyro's progress bar.
    """

    name: ClassVar[str] = "full Bayes"
    kind: ClassVar[Kind] = HIERARCHICAL_POSTERIOR
    hyperpriors: dict[str, Any]
    num_samples: int = whole_field("num_samples", 250, at_least=4)
    num_warmup: int = whole_field("num_warmup", 250)
    num_chains: int = whole_field("num_chains", 4)
    target_accept: float = real_field("target_accept", 0.9, Range.OPEN_UNIT)
    progress: bool = False

    def matrices(self, size: Size) -> dict[str, float]:
        at_once = self.num_chains if self.progress else num_threads(self.num_chains)
        return {"kernels of the chains and their gradients": 50.0 * at_once}

    def operations(self, size: Size) -> dict[str, float]:
        gradient = 3 * kernels(size) + 8 * size.rows**3
        draws = self.num_chains * (self.num_warmup + self.num_samples)
        predictions = self.num_chains * self.num_samples * (kernels(size) + size.rows**3)
        return {"chains": draws * _TYPICAL_STEPS * gradient, "predictions": predictions}

    @property
    def num_kept(self) -> int:
        return 2 * self.num_chains * self.num_samples

    def solve(self, problem: Problem, key: PRNGKeyArray | None) -> FullBayesLaw[FullBayesInfo]:
        from numpyro.infer import MCMC, init_to_value
        from numpyro.infer import NUTS as Kernel

        key = self.require_key(key)
        problem.prior.require_ridge("the posterior")
        if problem.gram.nngp is None:
            raise ConfigurationError(
                "full Bayes changes the scales of a network at infinite width; a finite network has "
                "none: use NUTS"
            )
        require_support(problem.prior, self.hyperpriors)
        model = NumPyroModel(problem, self.hyperpriors)
        start_key, run_key = jax.random.split(key)
        kernel = Kernel(
            model,
            target_accept_prob=self.target_accept,
            # Scales that act alike, such as the ridge's and the weights', are strongly correlated.
            dense_mass=[tuple(self.hyperpriors)] if self.hyperpriors else [],
            inverse_mass_matrix=model.inverse_mass_matrix,
            init_strategy=init_to_value(values=model.start),
        )
        sampler = MCMC(
            kernel,
            num_warmup=self.num_warmup,
            num_samples=self.num_samples,
            num_chains=self.num_chains,
            # NumPyro shows no bar of chains in threads of ours.
            chain_method="vectorized" if self.progress else _in_threads,
            progress_bar=self.progress,
        )
        fields = (
            *("diverging", "num_steps", "accept_prob", "potential_energy", "energy"),
            "adapt_state.step_size",
        )
        with jax.debug_key_reuse(False):  # NumPyro's own
            sampler.run(
                run_key,
                init_params=_started(model, start_key, self.num_chains),
                extra_fields=fields,
            )
        draws = sampler.get_samples(group_by_chain=True)
        seen = sampler.get_extra_fields(group_by_chain=True)
        info = _diagnose(draws, problem, seen)
        flat = {name: part.reshape(-1, *part.shape[2:]) for name, part in draws.items()}
        values = {name: flat[name] for name in self.hyperpriors}
        return FullBayesLaw(
            problem,
            self.kind,
            info,
            values,
            flat["whitened"],
            *hyperprior_of(self.hyperpriors, values, jax.random.fold_in(key, _PRIOR)),
            _sample_stats(seen),
            num_chains=self.num_chains,
        )


def _in_threads(chain: Callable) -> Callable:
    """One program for all chains, run in threads."""

    def run(given: tuple) -> Any:
        parts = each_chain(given)
        program = jax.jit(chain).lower(parts[0]).compile()
        with chain_threads(len(parts)) as each:
            done = each(program, [(part,) for part in parts])
        return jax.tree.map(lambda *values: jnp.stack(values), *done)

    return run


def _started(model: NumPyroModel, key: PRNGKeyArray, num_chains: int) -> dict[str, Array]:
    """Unconstrained values of the sites to start each chain from: hyper-parameters among the model's
    starts, as probable as their densities say, and white noise for the latent function."""
    choice_key, noise_key = jax.random.split(key)
    densities = jnp.asarray([start.log_density for start in model.starts])
    chosen = jax.random.categorical(choice_key, densities, shape=(num_chains,))
    started = {
        name: jnp.stack([model.starts[i].positions[name] for i in chosen])
        for name in model.hyperpriors
    }
    shape = (num_chains, *model.problem.targets.shape)
    started["whitened_position"] = white_noise(noise_key, shape)
    # NumPyro gives the only chain no axis.
    return started if num_chains > 1 else {name: value[0] for name, value in started.items()}


def _sample_stats(seen: Mapping[str, Array]) -> dict[str, Array]:
    """NumPyro's extra fields, (chains, samples), per draw and by ArviZ's names."""
    by_name = {
        "lp": -seen["potential_energy"],
        "energy": seen["energy"],
        "diverging": seen["diverging"],
        "n_steps": seen["num_steps"],
        "acceptance_rate": seen["accept_prob"],
        "step_size": seen["adapt_state.step_size"],
    }
    flat = {name: value.reshape(-1) for name, value in by_name.items()}
    return {**flat, "tree_depth": tree_depth(flat["n_steps"])}


def _diagnose(draws: Mapping[str, Array], problem: Problem, fields: dict) -> FullBayesInfo:
    seen = {name: part for name, part in draws.items() if name != "whitened"}
    seen["logits"] = problem.likelihood.project(draws["logits"])
    num_divergences = int(fields["diverging"].sum())
    return FullBayesInfo(
        **judged_draws(seen, num_divergences=num_divergences),
        num_divergences=num_divergences,
        mean_steps=float(fields["num_steps"].mean()),
        mean_accept=float(fields["accept_prob"].mean()),
    )
