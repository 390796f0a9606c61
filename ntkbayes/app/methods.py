"""Methods by the names of the command line."""

from ntkbayes import ranges
from ntkbayes.errors import ConfigurationError, UnknownNameError
from ntkbayes.laws import (
    MAP,
    NUTS,
    DirichletGP,
    ExpectationPropagation,
    FirstOrder,
    Laplace,
    MeanField,
    Method,
    PerturbedInit,
    PrunedLaplace,
    RandomInit,
    SplitHMC,
    Variational,
)

METHODS: dict[str, type[Method]] = {
    "map": MAP,
    "random-init": RandomInit,
    "first-order": FirstOrder,
    "laplace": Laplace,
    "pruned-laplace": PrunedLaplace,
    "nuts": NUTS,
    "split-hmc": SplitHMC,
    "perturbed-init": PerturbedInit,
    "variational": Variational,
    "mean-field": MeanField,
    "ep": ExpectationPropagation,
    "dirichlet": DirichletGP,
}
DEFAULT_LAWS = ("map", "random-init", "first-order", "laplace", "nuts")


def default_methods(
    names: tuple[str, ...] = DEFAULT_LAWS, *, num_draws: int = 1000
) -> dict[str, Method]:
    """Methods by the name that tables show.

    Args:
        names: of laws, see `METHODS`, or as tables show them.
        num_draws: initialisations of random-init and perturbed-init, draws per chain of NUTS and
            split-hmc. The other laws are closed forms, and ignore it.

    Raises:
        UnknownNameError: there is no such law.
        ConfigurationError: no names, or fewer than 4 draws.
    """
    if not names:
        raise ConfigurationError(f"no laws to compare; choose from {', '.join(METHODS)}")
    num_draws = ranges.whole("the number of draws", num_draws, at_least=4)
    made: dict[str, Method] = {}
    known = METHODS | {kind.name.lower(): kind for kind in METHODS.values()}
    for name in names:
        if name.lower() not in known:
            raise UnknownNameError("law", name, tuple(METHODS))
        kind = known[name.lower()]
        if issubclass(kind, RandomInit | PerturbedInit):
            made[kind.name] = kind(num_inits=num_draws)
        elif issubclass(kind, NUTS | SplitHMC):
            made[kind.name] = kind(num_samples=num_draws)
        else:
            made[kind.name] = kind()
    return made
