"""Where in the spectrum of the kernel laws are wide or narrow: their anatomy.

The eigenvectors of P = Θ(X, X)/ridge are directions in function space, from those that training moves
most easily (largest eigenvalues) to those that it hardly moves. Along the j-th the Bayesian prior has
variance λ_j, which the data reduce the more, the larger it is; a law over initialisations has a variance
of its own there, K's before training. Eigenvectors are grouped, 1, 1, 2, 4, 8 …, from the largest
eigenvalue on. As functions they are v_jᵀ f(X) φ_j(x) with φ_j(x) = Θ(x, X) v_j / (λ_j ridge).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ntkbayes.arguments import random_key, require
from ntkbayes.comparison import key_of
from ntkbayes.display import Sheet, Summarised
from ntkbayes.errors import ConfigurationError, UnknownNameError
from ntkbayes.laws import GaussianLaw, Law, Problem
from ntkbayes.laws.law import require_law
from ntkbayes.laws.problem import Inputs
from ntkbayes.scores.jackknife import Sample, variances

if TYPE_CHECKING:
    import pandas as pd

MOST_ROWS = 3000
"""Of P, whose eigenvectors are taken; and of a joint covariance that is formed."""


@dataclass(frozen=True, eq=False, repr=False)
class Anatomy(Summarised):
    """The variance of laws along groups of eigenvectors of P, at the training points.

    Attributes:
        eigenvalues: of P, mean over each group: the variance of the Bayesian prior.
        sizes: eigenvectors in each group.
        variances: by law, mean over the group's eigenvectors and the logits, up to what the likelihood
            cannot see.
        errors: their Monte Carlo errors; 0 where there is a formula.
        reference: the law that others are compared with.
        shares: of each group, the mean over some inputs of Σ φ_j(x)²: times a variance it is the part of
            the variance of a logit there that lies along the group. Empty if there were no inputs.
    """

    eigenvalues: tuple[float, ...]
    sizes: tuple[int, ...]
    variances: Mapping[str, tuple[float, ...]]
    errors: Mapping[str, tuple[float, ...]]
    reference: str
    shares: tuple[float, ...] = ()

    def ratio(self, name: str) -> tuple[Float[np.ndarray, " groups"], Float[np.ndarray, " groups"]]:
        """A law's variance over the reference's in each group, and its Monte Carlo error.

        Raises:
            UnknownNameError: there is no such law.
        """
        if name not in self.variances:
            raise UnknownNameError("law", name, tuple(self.variances))
        own, its = (np.asarray(self.variances[each]) for each in (name, self.reference))
        errors = [np.asarray(self.errors[each]) for each in (name, self.reference)]
        ratio = own / its
        return ratio, ratio * np.hypot(errors[0] / own, errors[1] / its)

    def sentence(self, name: str) -> str:
        """Where a law is narrowest and widest beside the reference, in words."""
        ratio, error = self.ratio(name)
        low, high = int(np.argmin(ratio)), int(np.argmax(ratio))
        if ratio[high] - ratio[low] <= 2 * math.hypot(error[high], error[low]):
            middle = float(np.exp(np.mean(np.log(ratio))))
            return (
                f"{name} has about {middle:.2g} of the variance of {self.reference} along all "
                "eigenvectors of the kernel, within Monte Carlo error."
            )
        return (
            f"Beside {self.reference}, {name} is narrowest along {self._group(low)}, with "
            f"{ratio[low]:.2g} ± {error[low]:.1g} of its variance, and widest along "
            f"{self._group(high)}, with {ratio[high]:.2g} ± {error[high]:.1g}."
        )

    def _group(self, i: int) -> str:
        start = 1 + sum(self.sizes[:i])
        end = start + self.sizes[i] - 1
        which = f"eigenvector {start}" if start == end else f"eigenvectors {start} to {end}"
        return f"{which} of {sum(self.sizes)} (prior variance {self.eigenvalues[i]:.2g})"

    def table(self) -> "pd.DataFrame":
        """A row per group: eigenvectors, eigenvalue, each law's variance with its error, and the part of
        the variance at the inputs where they were given."""
        import pandas as pd

        columns: dict[str, Any] = {"eigenvectors": self.sizes, "eigenvalue": self.eigenvalues}
        for name, variance in self.variances.items():
            columns[name], columns[f"{name}_error"] = variance, self.errors[name]
            if self.shares:
                columns[f"{name}_at_inputs"] = np.multiply(variance, self.shares)
        return pd.DataFrame(columns).rename_axis("group")

    @property
    def _sheet(self) -> Sheet:
        told = {n: self.sentence(n) for n in self.variances if n != self.reference}
        header = ("eigenvectors", "eigenvalue", *self.variances)
        rows = [
            [str(size), f"{value:.3g}", *(f"{v[i]:.3g}" for v in self.variances.values())]
            for i, (size, value) in enumerate(zip(self.sizes, self.eigenvalues, strict=True))
        ]
        return Sheet("anatomy along the kernel's eigenvectors", told, header, rows)

    @property
    def plain(self) -> dict[str, Any]:
        """As plain data, for files."""
        return {
            "eigenvalues": list(self.eigenvalues),
            "sizes": list(self.sizes),
            "variances": {name: list(values) for name, values in self.variances.items()},
            "errors": {name: list(values) for name, values in self.errors.items()},
            "reference": self.reference,
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "Anatomy":
        """The inverse of `plain`. Raises KeyError, TypeError or ValueError of other data."""
        variances, errors = (
            {str(name): tuple(map(float, values)) for name, values in plain[part].items()}
            for part in ("variances", "errors")
        )
        eigenvalues = tuple(map(float, plain["eigenvalues"]))
        sizes = tuple(map(int, plain["sizes"]))
        return cls(eigenvalues, sizes, variances, errors, str(plain["reference"]))


def anatomy(
    laws: Mapping[str, Law],
    features: Inputs | None = None,
    *,
    key: PRNGKeyArray,
    reference: str | None = None,
    num_draws: int | None = None,
) -> Anatomy:
    """The variance of laws along the eigenvectors of P: in closed form for Gaussian laws, by draws for
    others.

        nb.anatomy({"random init": ensemble, "posterior": nuts}, test, key=key)

    Args:
        laws: by name, fitted with one prior to the same points.
        features: inputs at which to tell the parts of the variance; none if None.
        key: of the draws.
        reference: the law to compare with; the last by default.
        num_draws: of laws without a formula; all that are stored, or 1000, if None.

    Raises:
        ConfigurationError: there are no laws, they were fitted to different points or with different
            kernels or ridges, or P has more than 3000 rows or is known by products alone.
        RidgeError: the ridge is 0.
        UnknownNameError: the reference is none of the laws.
    """
    require("anatomy(laws, key=key)", "laws", laws, Mapping, lambda given: "name the laws")
    if not laws:
        raise ConfigurationError("anatomy() needs at least one law")
    for name, law in laws.items():
        require_law("anatomy(laws, key=key)", f"laws[{name!r}]", law)
    reference = list(laws)[-1] if reference is None else reference
    if reference not in laws:
        raise UnknownNameError("law", reference, tuple(laws))
    key, problem = random_key(key), laws[reference].problem
    basis = Basis.of(problem)
    found = {}
    for name, law in laws.items():
        _require_same(law.problem, problem, name, reference)
        found[name] = basis.of_law(law, key_of(key, name), num_draws)
    shares = () if features is None else basis.shares(problem, features)
    return basis.anatomy(found, reference, shares)


@dataclass(frozen=True, eq=False)
class Basis:
    """The eigenvectors of P, in groups.

    Attributes:
        values: eigenvalues, in decreasing order.
        vectors: of unit length, in columns; (n, n), or (nC, nC) where Θ couples the outputs.
        groups: of their places.
    """

    values: Float[np.ndarray, " rows"]
    vectors: Float[np.ndarray, "rows rows"]
    groups: tuple[np.ndarray, ...]

    @classmethod
    def of(cls, problem: Problem) -> "Basis":
        """Raises ConfigurationError as `anatomy` does."""
        problem.prior.require_ridge("the anatomy, which takes P = Θ/ridge,")
        gram = problem.gram.ntk
        gram.require_formed("the anatomy needs the eigenvectors of Θ")
        matrix = np.asarray(gram.dense()) / problem.ridge
        if len(matrix) > MOST_ROWS:
            raise ConfigurationError(
                f"the anatomy takes the eigenvectors of a matrix of {len(matrix)} rows, more than "
                f"{MOST_ROWS}; fit the laws to fewer points"
            )
        values, vectors = np.linalg.eigh(matrix)
        edges = [0, *np.cumsum([1, *(2**i for i in range(20))])]
        edges = [edge for edge in edges if edge < len(matrix)]
        if len(edges) > 2 and len(matrix) - edges[-1] < edges[-1] - edges[-2]:
            del edges[-1]  # the rest joins the last whole group
        groups = np.split(np.arange(len(matrix)), edges[1:])
        return cls(np.maximum(values[::-1], 0.0), vectors[:, ::-1], tuple(groups))

    def of_law(
        self, law: Law, key: PRNGKeyArray, num_draws: int | None
    ) -> tuple[Float[np.ndarray, " groups"], Float[np.ndarray, " groups"]]:
        """Variances along the groups, and their errors."""
        problem = law.problem
        project = problem.likelihood.project
        if isinstance(law, GaussianLaw) and problem.targets.size <= MOST_ROWS:
            along = self._of_covariance(law.joint_covariance(problem.features), problem)
            return along, np.zeros(len(self.groups))
        draws = law.sample(key, problem.features, num_draws)
        return self.of_draws(np.asarray(project(draws)), problem)

    def of_draws(
        self, centred: Sample, problem: Problem
    ) -> tuple[Float[np.ndarray, " groups"], Float[np.ndarray, " groups"]]:
        """Of projected draws (S, n, C), with errors by blocks of draws."""
        if len(self.vectors) == centred.shape[1]:
            along = self.vectors.T @ centred
        else:
            along = (centred.reshape(len(centred), -1) @ self.vectors)[:, :, None]
        seen = self._seen(problem)

        def grouped(variance: Float[np.ndarray, "rows outputs"]) -> Float[np.ndarray, " groups"]:
            each = variance.mean(axis=1) / seen
            return np.array([each[group].mean() for group in self.groups])

        found = variances(along, ddof=1).to(grouped)
        return found.whole, np.sqrt(found.variance)

    def _of_covariance(
        self, covariance: Float[Array, "rows rows"], problem: Problem
    ) -> Float[np.ndarray, " groups"]:
        n, size = problem.targets.shape
        project = problem.likelihood.project
        blocks = covariance.reshape(n * size, n, size)
        half = project(blocks).reshape(n * size, n * size).T.reshape(n * size, n, size)
        whole = np.asarray(project(half)).reshape(n, size, n, size)
        is_of_points = len(self.vectors) == n
        flat = np.einsum("ncmc->nm", whole) / size if is_of_points else whole.reshape(n * size, -1)
        diagonal = np.sum(self.vectors * (flat @ self.vectors), axis=0)
        diagonal = diagonal / self._seen(problem)
        return np.array([diagonal[group].mean() for group in self.groups])

    def _seen(self, problem: Problem) -> float:
        """The part of an independent logit's variance that the likelihood sees: 1 − 1/C for softmax."""
        if len(self.vectors) != len(problem.features):
            return 1.0
        return 1.0 - problem.likelihood.is_flat / problem.num_outputs

    def shares(self, problem: Problem, features: Inputs) -> tuple[float, ...]:
        """Σ over each group of the mean of φ_j(x)² over the inputs."""
        inputs = problem.read(features)
        cross = problem.prior.cross(inputs, problem.features).ntk
        rows = np.asarray(cross.dense()) / problem.ridge
        floor = 1e-12 * self.values[0]  # below it eigenvectors are round-off
        functions = rows @ self.vectors / np.maximum(self.values, floor)
        squares = np.mean(functions**2, axis=0)
        return tuple(float(squares[group].sum()) for group in self.groups)

    def anatomy(
        self,
        found: Mapping[str, tuple[np.ndarray, np.ndarray]],
        reference: str,
        shares: tuple[float, ...] = (),
    ) -> Anatomy:
        variances = {name: tuple(map(float, part[0])) for name, part in found.items()}
        errors = {name: tuple(map(float, part[1])) for name, part in found.items()}
        eigenvalues = tuple(float(self.values[group].mean()) for group in self.groups)
        sizes = tuple(len(group) for group in self.groups)
        return Anatomy(eigenvalues, sizes, variances, errors, reference, shares)


def _require_same(own: Problem, its: Problem, name: str, reference: str) -> None:
    same = own is its or (
        np.array_equal(own.features, its.features)
        and own.ridge == its.ridge
        and np.allclose(own.gram.ntk.variances, its.gram.ntk.variances)
    )
    if not same:
        raise ConfigurationError(
            f"{name!r} and {reference!r} were fitted to different points, or with another kernel or "
            "ridge, whose eigenvectors differ; fit them alike"
        )
