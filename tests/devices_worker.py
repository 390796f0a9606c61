"""What `test_devices` runs in processes of its own: laws of one problem, and where their arrays lie."""

import sys

import jax

OUT, PROCESSES, RANK, PORT = sys.argv[1], *map(int, sys.argv[2:])
if PROCESSES > 1:
    jax.distributed.initialize(f"127.0.0.1:{PORT}", PROCESSES, RANK)
jax.config.update("jax_enable_x64", True)

import contextlib

import numpy as np

import ntkbayes as nb
from ntkbayes.kernels import EmpiricalKernel
from ntkbayes.linalg import over_devices
from ntkbayes.networks import from_functions

NUM_POINTS = 272  # more than Newton's method trains, and a multiple of 16
NEW = np.random.default_rng(1).standard_normal((16, 4))
KEY = jax.random.key(0)


SIZES: list[int] = []
"""Of the passes through the network, in points."""


def initial(key, x):
    first, last = jax.random.split(key)
    return jax.random.normal(first, (4, 20)), jax.random.normal(last, (20, 3)) / 4


def function(params, x):
    SIZES.append(len(x))
    return jax.numpy.tanh(x @ params[0]) @ params[1]


def bytes_of(array: jax.Array) -> list[int]:
    return [shard.data.nbytes for shard in array.addressable_shards]


def main() -> None:
    rng = np.random.default_rng(0)
    features = rng.standard_normal((NUM_POINTS, 4))
    data = nb.Dataset(
        features, np.argmax(features[:, :3] + rng.standard_normal((NUM_POINTS, 3)), axis=1)
    )
    prior = nb.NTKPrior(nb.networks.mlp(depth=2), ridge=0.1)
    many = len(jax.devices()) > 1
    with over_devices() if many else contextlib.nullcontext():
        point = nb.MAP().fit(prior, data)
        laplace = nb.Laplace().fit(prior, data)
        inits = nb.RandomInit(num_inits=3).fit(prior, data, key=KEY)
        found = {
            "alpha": point.alpha,
            "mean": point.mean(NEW),
            "evidence": laplace.info.log_evidence,
            "covariance": laplace.covariance(NEW),
            "inits": inits.sample(KEY, NEW),
            "kernel_bytes": bytes_of(point.problem.gram.ntk.dense()),
            "factor_bytes": bytes_of(inits.g.process.factor.lower),
        }
        network = from_functions(initial, function)
        kernel = EmpiricalKernel(network, initial(KEY, NEW), max_rows=10)
        by_products = nb.MAP().fit(nb.NTKPrior(kernel, ridge=0.1), data)
        found |= {"by_products": by_products.mean(NEW), "sizes": sorted(set(SIZES))}
        if PROCESSES == 1:  # the rest is made of the same pieces
            perturbed = nb.PerturbedInit(num_inits=3).fit(prior, data, key=KEY)
            found |= {
                "laplace": laplace.sample(KEY, NEW, 3),
                "spread": inits.variance(NEW),
                "perturbed": perturbed.sample(KEY, NEW),
            }
        np.savez(OUT, **{name: np.asarray(value) for name, value in found.items()})


main()
