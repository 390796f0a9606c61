"""What Markov chains leave behind besides functions, draw by draw: what ArviZ judges them by."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

import numpy as np
from jaxtyping import Shaped
from numpy.typing import ArrayLike

PerDraw = Mapping[str, Shaped[np.ndarray, "draws ..."]]


@dataclass(frozen=True, eq=False)
class Trace:
    """Numbers per draw, in the order of a law's draws; all empty where there are no chains.

    Attributes:
        sample_stats: of the transition that led to the draw, by ArviZ's names: lp, energy, diverging,
            n_steps, acceptance_rate, step_size, and where there are trees tree_depth.
        log_prior: log prior densities, in nats: of each hyper-parameter, by name, and under `logits`
            that of the whitened logits at the training points, log N(z; 0, I). Raised to the power α,
            that prior is the one with α times the ridge: `az.psense` tells how much the ridge matters.
        hyperparameters: those that were sampled, by name, (S, ...).
    """

    sample_stats: PerDraw = field(default_factory=dict)
    log_prior: PerDraw = field(default_factory=dict)
    hyperparameters: PerDraw = field(default_factory=dict)

    def __len__(self) -> int:
        """S; 0 if nothing is known."""
        return max(self._lengths, default=0)

    def fits(self, num_draws: int) -> bool:
        """Whether all that is known is of so many draws."""
        return self._lengths <= {num_draws}

    @property
    def _lengths(self) -> set[int]:
        return {len(v) for f in fields(self) for v in getattr(self, f.name).values()}

    def chosen(self, draws: ArrayLike) -> "Trace":
        """Some of the draws, by their indices."""
        return Trace(
            *(
                {
                    name: np.asarray(v)[np.asarray(draws)]
                    for name, v in getattr(self, f.name).items()
                }
                for f in fields(self)
            )
        )
