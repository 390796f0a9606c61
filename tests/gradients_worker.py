"""What `test_evidence_gradients` runs in a process of its own, whose compiler optimises."""

import json

import jax

jax.config.update("jax_enable_x64", True)

import numpy as np

import ntkbayes as nb
from ntkbayes.selection import evidence_gradient

rng = np.random.default_rng(1)
data = nb.Dataset(rng.standard_normal((30, 4)), rng.integers(0, 2, 30))
network = nb.networks.mlp(depth=2, weight_std=1.5, bias_std=0.3)
found = evidence_gradient(nb.NTKPrior(network, ridge=0.5), data)
print(json.dumps({name: float(slope) for name, slope in found.items()}))
