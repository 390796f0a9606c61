"""The law of real networks that were trained elsewhere."""

import warnings
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ntkbayes.display import few
from ntkbayes.errors import ConfigurationError
from ntkbayes.kernels import Functions
from ntkbayes.laws.info import Info
from ntkbayes.laws.kind import GIVEN, Kind
from ntkbayes.laws.method import Method
from ntkbayes.laws.problem import Problem
from ntkbayes.laws.sampled.network_ensemble import (
    TrainedFunctions,
    TrainedNetworks,
    law_of_networks,
)
from ntkbayes.networks import Network, Params, require_same_shapes, require_sound
from ntkbayes.priors.prior import NTKPrior
from ntkbayes.training.operations import Size


class AboveMean(Functions):
    """x ↦ f(x; θ) − mean(x) of each network: laws add the prior's mean."""

    functions: TrainedFunctions
    prior: NTKPrior

    @property
    def params(self) -> Params:
        return self.functions.params

    def __call__(self, features: Float[Array, "n ..."]) -> Float[Array, "draws n classes"]:
        logits = self.functions(features)
        return logits - self.prior.mean_logits(features, logits.shape[2])[None]


class GivenEnsembleInfo(Info):
    """num_networks: how many members there are."""

    num_networks: int


class GivenEnsemble(Method[TrainedNetworks[GivenEnsembleInfo]]):
    """The law of given networks, f(x) = network(x; θ) of each; made by `FiniteEnsemble.of`.

    Fitting trains nothing: prior and data say what the members are compared on, and the prior's mean is
    no part of them.
    """

    name: ClassVar[str] = GIVEN.name
    kind: ClassVar[Kind] = GIVEN
    network: Network
    params: Params

    @classmethod
    def of(cls, network: Network, members: Sequence[Params]) -> "GivenEnsemble":
        """See `FiniteEnsemble.of`."""
        finite = [
            params
            for params in members
            if all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(params))
        ]
        if len(finite) < 2:
            raise ConfigurationError(
                f"an ensemble takes two networks at least; {len(finite)} of the {len(members)} given "
                "have finite parameters"
            )
        for i, params in enumerate(members):
            require_same_shapes(f"members[{i}]", params, finite[0])
        if len(finite) < len(members):
            lost = [i for i, params in enumerate(members) if not any(params is p for p in finite)]
            warnings.warn(
                f"members {few(lost)} have parameters that are NaN or infinite, and are left out: "
                f"{len(finite)} of {len(members)} are kept",
                UserWarning,
                stacklevel=3,
            )
        return cls(network, jax.tree.map(lambda *leaves: jnp.stack(leaves), *finite))

    def operations(self, size: Size) -> dict[str, float]:
        return {}

    def interpolates(self, prior: NTKPrior) -> bool:
        return False

    def solve(
        self, problem: Problem, key: PRNGKeyArray | None = None
    ) -> TrainedNetworks[GivenEnsembleInfo]:
        first: Any = jax.tree.map(lambda leaf: leaf[0], self.params)
        dtype = jax.tree.leaves(first)[0].dtype
        num_outputs = require_sound(self.network, first, problem.features.astype(dtype))
        if num_outputs != problem.num_outputs:
            raise ConfigurationError(
                f"the networks have {num_outputs} outputs, but the likelihood takes "
                f"{problem.num_outputs} of these data"
            )
        functions = AboveMean(TrainedFunctions(self.network, self.params), problem.prior)
        info = GivenEnsembleInfo(len(jax.tree.leaves(self.params)[0]))
        return law_of_networks(problem, self.kind, info, functions)
