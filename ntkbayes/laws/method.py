"""What a method is: how a law is obtained from a prior and data."""

import abc
import copy
import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
from jaxtyping import PRNGKeyArray

from ntkbayes.arguments import random_key, require
from ntkbayes.datasets import Dataset
from ntkbayes.display import Configured
from ntkbayes.errors import ArgumentError, ConfigurationError, UnknownNameError
from ntkbayes.laws.kind import Kind
from ntkbayes.laws.law import Law
from ntkbayes.laws.problem import Problem, require_problem
from ntkbayes.likelihood import Likelihood, default_likelihood
from ntkbayes.linalg import num_shares
from ntkbayes.memory import NUMBER, Memory
from ntkbayes.priors.prior import NTKPrior
from ntkbayes.training.matrices import by_products, training_matrices
from ntkbayes.training.operations import Size, kernels, training
from ntkbayes.work import Work


def _of_an_instance[**P, T](fit: Callable[P, T]) -> Callable[P, T]:
    """`Method.fit`, which says what is wrong where Python would count arguments."""
    signature = inspect.signature(fit)

    @functools.wraps(fit)
    def checked(*args: P.args, **kwargs: P.kwargs) -> T:
        if not args or not isinstance(args[0], Method):
            raise ArgumentError(
                "fit was called on a class: make the method first, as in "
                "nb.MAP().fit(prior, data), not nb.MAP.fit(prior, data)"
            )
        try:
            signature.bind(*args, **kwargs)
        except TypeError as error:
            is_prior_alone = len(args) == 2 and "data" not in kwargs
            told = "give the training data" if is_prior_alone else "key and likelihood go by name"
            if len(args) > 3:
                told = f"put features and targets into one nb.Dataset(X, y), and {told}"
            raise ArgumentError(
                f"{error}: it is {type(args[0]).__name__}(…).fit(prior, data, key=key); {told}"
            ) from None
        return fit(*args, **kwargs)

    return checked


class Method[LawT: Law](Configured, eqx.Module):
    """How to obtain a law.

    Attributes:
        name: what tables call its laws by default.
        kind: what its laws are.
    """

    name: ClassVar[str]
    kind: eqx.AbstractClassVar[Kind]

    @_of_an_instance
    def fit(
        self,
        prior: NTKPrior,
        data: Dataset,
        *,
        key: PRNGKeyArray | None = None,
        likelihood: Likelihood | None = None,
    ) -> LawT:
        """The law, for a prior and training data.

        Args:
            prior: what the network is before training.
            data: training data.
            key: randomness, for the methods that draw (the others ignore it).
            likelihood: how logits give rise to targets. By default one logit for two classes,
                softmax for more, Normal for real targets. `likelihood.tempered(T)` divides its log by
                T in the fit, not in predictions.

        Raises:
            PrecisionError: JAX is not in float64.
            RidgeError: the ridge is 0 where the law does not exist.
            ConvergenceError: a solve did not reach its tolerance.
            NotPositiveDefiniteError: the kernel is not positive definite.
            ConfigurationError: a method that draws was given no key.
            ArgumentError: an argument is of another kind, such as a tuple in place of the data.
        """
        key = None if key is None else random_key(key)
        problem = self.problem(prior, data, likelihood)
        law = self.solve(problem, key)
        if problem.temperature == 1:
            return law
        return dataclasses.replace(law, kind=law.kind.at_temperature(problem.temperature))

    def problem(self, prior: NTKPrior, data: Dataset, likelihood: Likelihood | None) -> Problem:
        """What `solve` is given, if there is memory for it. Arguments and errors are those of `fit`."""
        require_problem("fit(prior, data)", prior, data, likelihood)
        if self.interpolates(prior):
            data = data.merged()
        self.memory(prior, data, likelihood=likelihood).require()
        return Problem.build(prior, data, likelihood)

    def memory(
        self, prior: NTKPrior, data: Dataset, *, likelihood: Likelihood | None = None
    ) -> Memory:
        """Peak memory of `fit` per device; `fit` refuses if there is less.

        What real networks need to train is not counted.
        """
        require_problem("memory(prior, data)", prior, data, likelihood)
        likelihood = default_likelihood(data) if likelihood is None else likelihood
        num_points, num_outputs = likelihood.encode(data).shape
        who = f"{self.name}, {num_points} points, {num_outputs} outputs"
        kernel, features = prior.kernel, jax.device_put(data.features)
        scratch = kernel.scratch(features)
        size, grams = Size(num_points, num_outputs, 0, couples=False), {"K and Θ": 2.0}
        if kernel.couples(features):
            size, grams = Size(num_points * num_outputs, 1, 0, couples=True), {"Θ": 1.0}
            if not kernel.is_formed(size.rows):
                parts = by_products(num_points, num_outputs, self.num_trained, scratch)
                return Memory(f"{who}, by products", num_points, parts)
        share = NUMBER * size.rows**2 / num_shares()
        if jax.default_backend() == "cpu":
            share *= jax.local_device_count() if num_shares() > 1 else 1
        held, later = (
            {what: count * share for what, count in matrices.items()}
            for matrices in (grams, self.matrices(size))
        )
        later["draws"] = NUMBER * self.num_kept * num_points * num_outputs
        # Of the network's passes, which are over by then, only what is more than that counts.
        passes = {"passes through the network": max(0.0, scratch - sum(later.values()))}
        return Memory(who, num_points, {**held, **later, **passes})

    def matrices(self, size: Size) -> dict[str, float]:
        """How many float64 matrices of the size of Θ(X, X) there are at the peak besides K and Θ, by
        purpose. By default those of training one predictor."""
        return training_matrices(size)

    @property
    def num_trained(self) -> int:
        """How many predictors are trained."""
        return 1

    @property
    def num_kept(self) -> int:
        """How many arrays of (n, C) numbers the draws take."""
        return 0

    def work(
        self,
        prior: NTKPrior,
        data: Dataset,
        *,
        num_new: int = 0,
        likelihood: Likelihood | None = None,
    ) -> Work:
        """How long `fit` takes, and `predict` at the training points and at others, on this machine.

        The training of real networks is not counted.

        Args:
            num_new: how many other points.
        """
        require_problem("work(prior, data)", prior, data, likelihood)
        likelihood = default_likelihood(data) if likelihood is None else likelihood
        num_points, num_outputs = likelihood.encode(data).shape
        who = f"{self.name}, {num_points} points, {num_outputs} outputs"
        kernel, features = prior.kernel, jax.device_put(data.features)
        size = Size(num_points, num_outputs, num_new, couples=False)
        if kernel.couples(features):
            size = Size(num_points * num_outputs, 1, num_new * num_outputs, couples=True)
        size = size._replace(
            entry=kernel.entry_operations(features),
            by_products=kernel.product_operations(features),
        )
        return Work(who, self.operations(size))

    def operations(self, size: Size) -> dict[str, float]:
        """Of `fit` and `predict`, by purpose; none where they are not known. By default those of
        training one predictor."""
        return {"kernels": kernels(size), "training": training(size)}

    def interpolates(self, prior: NTKPrior) -> bool:
        """Whether training reproduces the targets. Then duplicated points act as one point with
        the mean of their targets, and have to be one, for Θ to be invertible."""
        return float(prior.ridge) == 0

    @abc.abstractmethod
    def solve(self, problem: Problem, key: PRNGKeyArray | None) -> LawT:
        """`fit` with the data encoded and the Grams evaluated."""

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The settings by name, as scikit-learn asks estimators for theirs; with `deep`, also those of
        a method within, such as `method__num_inits`."""
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        nested = {
            f"{name}__{inner}": setting
            for name, value in own.items()
            if deep and isinstance(value, Method)
            for inner, setting in value.get_params().items()
        }
        return {**own, **nested}

    def set_params(self, **settings: Any) -> "Method[LawT]":
        """Change settings, those of a method within by `method__num_inits`. As scikit-learn needs it,
        this changes the method itself, and returns it; nothing else changes a method.

        Raises:
            UnknownNameError: there is no such setting.
            ConfigurationError: a setting is outside its range.
        """
        own: dict[str, Any] = {}
        inner: dict[str, dict[str, Any]] = {}
        for name, setting in settings.items():
            first, _, rest = name.partition("__")
            if name not in (known := self.get_params()):
                raise UnknownNameError(f"setting of {type(self).__name__}", name, known)
            if rest:
                inner.setdefault(first, {})[rest] = setting
            else:
                own[first] = setting
        changed = dataclasses.replace(self, **own)
        for name, part in inner.items():
            copied = copy.copy(getattr(changed, name)).set_params(**part)
            changed = dataclasses.replace(changed, **{name: copied})
        vars(self).update(vars(changed))
        return self

    def require_key(self, key: PRNGKeyArray | None) -> PRNGKeyArray:
        """Raises ConfigurationError if there is none."""
        if key is None:
            raise ConfigurationError(
                f"{type(self).__name__} draws at random: give key=jax.random.key(0)"
            )
        return key


def wrapped(method: Any) -> Method:
    """The method that another one wraps. Raises ArgumentError if it is something else."""
    require_method("TemperatureScaled(method) or ImportanceCorrected(method)", "method", method)
    return method


def require_method(call: str, name: str, value: Any) -> None:
    """Raises ArgumentError unless the value is a `Method`; see `arguments.require`."""

    def remedy(given: Any) -> str:
        return "give the method that it was fitted by" if isinstance(given, Law) else ""

    require(call, name, value, Method, remedy)
