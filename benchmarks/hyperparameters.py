"""Hyper-parameters sampled together with the latent function: counts under a Poisson likelihood.

    python benchmarks/hyperparameters.py [--points 40] [--samples 250] [--warmup 250]

`FullBayes` against NumPyro's NUTS on the same model in whitened coordinates, z ~ N(0, I). The latter is
run for few draws, because its trajectories are long; its seconds are scaled to as many draws, and are
a lower bound where trajectories stop at NumPyro's largest tree. Seconds include warm-up and compilation.
"""

import argparse
import time
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from arviz_stats.base import array_stats
from numpyro.infer import MCMC
from numpyro.infer import NUTS as PlainNUTS

import ntkbayes as nb

HYPERPRIORS = {"ridge": dist.LogNormal(-1.0, 1.0), "weight_std": dist.LogNormal(0.0, 0.5)}
CHAINS = 4
PLAIN_DRAWS = 20  # per chain, as many for warm-up
PRIOR = nb.NTKPrior(nb.networks.mlp(depth=2), ridge=0.1)


def poisson(target: jax.Array, logits: jax.Array) -> jax.Array:
    return jnp.sum(target * logits - jnp.exp(logits) - jax.scipy.special.gammaln(target + 1))


LIKELIHOOD = nb.likelihood.LogConcave(poisson, num_logits=1, examples=[[0.0], [1.0], [100.0]])


def counts(num_points: int) -> nb.Dataset:
    random = np.random.default_rng(0)
    features = random.uniform(-2.0, 2.0, size=(num_points, 2))
    rate = np.exp(1 + np.sin(2 * features[:, 0]) + features[:, 1] / 2)
    return nb.Dataset.real(features, random.poisson(rate).astype(float))


def report(name: str, values: Any, steps: Any, seconds: float) -> None:
    """Of draws (chains, samples) of each hyper-parameter and of their leapfrog steps."""
    axes = {"chain_axis": 0, "draw_axis": 1}
    print(f"\n{name}: {seconds:.0f} s, {np.mean(steps):.0f} steps per draw (most {np.max(steps)})")
    for parameter, draws in values.items():
        logs = np.log(np.asarray(draws))
        ess, rhat = array_stats.ess(logs, **axes), array_stats.rhat(logs, **axes)
        print(
            f"  log {parameter}: {logs.mean():.2f} ± {logs.std():.2f}, ESS {float(ess):.0f} of "
            f"{logs.size}, R-hat {float(rhat):.3f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=40)
    parser.add_argument("--samples", type=int, default=250)
    parser.add_argument("--warmup", type=int, default=250)
    asked = parser.parse_args()
    data = counts(asked.points)

    method = nb.FullBayes(HYPERPRIORS, num_samples=asked.samples, num_warmup=asked.warmup)
    begin = time.perf_counter()
    law = method.fit(PRIOR, data, key=jax.random.key(0), likelihood=LIKELIHOOD)
    seconds = time.perf_counter() - begin
    values = {name: np.reshape(v, (law.num_chains, -1)) for name, v in law.values.items()}
    report("FullBayes", values, law.sample_stats["n_steps"], seconds)
    print(f"  {law.info.num_divergences} divergences, smallest ESS {law.info.min_ess:.0f}")

    latent = nb.numpyro_prior(PRIOR, data, hyperpriors=HYPERPRIORS, likelihood=LIKELIHOOD)
    targets = jnp.asarray(data.targets)

    def whitened() -> None:
        numpyro.factor("likelihood", jnp.sum(LIKELIHOOD.log_density(targets, latent())))

    chains = MCMC(
        PlainNUTS(whitened),
        num_warmup=PLAIN_DRAWS,
        num_samples=PLAIN_DRAWS,
        num_chains=CHAINS,
        chain_method="vectorized",
        progress_bar=False,
    )
    begin = time.perf_counter()
    chains.run(jax.random.key(0), extra_fields=("num_steps",))
    steps = np.asarray(chains.get_extra_fields()["num_steps"])
    seconds = time.perf_counter() - begin
    draws = chains.get_samples(group_by_chain=True)
    report("whitened", {name: draws[name] for name in HYPERPRIORS}, steps, seconds)
    share = (asked.samples + asked.warmup) / (2 * PLAIN_DRAWS)
    print(f"  as many draws as above: {share * seconds:.0f} s")


if __name__ == "__main__":
    main()
