"""Groups that are alike, but not the same: 90 parts measured by six instruments, two classes.

Copy this file, change what you need, then

    ntkbayes compare --model models/hierarchical.py
"""

import numpy as np
import numpyro.distributions as dist

import ntkbayes as nb

# Two measurements of each part and, in the last column, the number of the instrument that took them.
# Here they are simulated, with an offset per instrument. Yours come from a table.
random = np.random.default_rng(0)
NUM_GROUPS, SIZE = 6, 15
group = np.repeat(np.arange(NUM_GROUPS), SIZE)
part = random.normal(size=(NUM_GROUPS * SIZE, 2))
is_good = random.uniform(size=len(part)) < 1 / (
    1 + np.exp(-8 * (part[:, 0] + np.sin(2 * part[:, 1])))
)
offset = 0.7 * random.normal(size=(NUM_GROUPS, 2))
data = nb.Dataset(
    np.column_stack([part + offset[group], group]),
    np.where(is_good, "good", "bad"),
    feature_names=["first", "second", "instrument"],
    name="six instruments",
)


class Grouped(nb.kernels.Kernel):
    """f(x, g) = shared(x) + between · own_g(x): one network that all groups share, and one per group.

    between = 0 pools all groups, between → ∞ shares nothing between them. For a group unseen in
    training the shared part is known, and its own part follows the prior.
    """

    kernel: nb.kernels.Kernel
    between: float = 1.0

    def cross(self, x1, x2):
        pair = self.kernel.cross(x1[:, :-1], x2[:, :-1])
        is_same = x1[:, -1][:, None] == x2[:, -1][None, :]
        scale = 1 + self.between**2 * is_same
        return nb.kernels.KernelPair(scale * pair.nngp, scale * pair.ntk)

    def diagonal(self, x):
        pair = self.kernel.diagonal(x[:, :-1])
        scale = 1 + self.between**2
        return nb.kernels.KernelPair(scale * pair.nngp, scale * pair.ntk)


network = nb.networks.mlp(depth=1, activation="erf", weight_std=1.5, bias_std=0.5)
prior = nb.NTKPrior(Grouped(nb.kernels.analytic_kernel(network)), ridge=0.3)

# How far the groups differ is learned from all of them: numeric fields of your own kernel are
# hyper-parameters, by name.
hyperpriors = {"between": dist.HalfNormal(1.0), "ridge": dist.LogNormal(-1.0, 1.0)}

methods = {
    "MAP": nb.MAP(),  # like all but the last, with between and ridge as given above
    "random init": nb.RandomInit(num_inits=1000),
    "Laplace": nb.Laplace(),
    "hierarchical": nb.FullBayes(hyperpriors, num_samples=150, num_warmup=150, num_chains=4),
}

study = nb.Study(data=data, prior=prior, methods=methods, test_share=0.3, seed=0)
