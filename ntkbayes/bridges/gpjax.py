"""GPJax: both kernels of a network as kernels that `gpjax.fit` trains; data in both directions.

    kernel = NTKKernel(nb.networks.mlp(activation="erf"), ridge=0.1)
    model = gpx.Prior(kernel=kernel, mean_function=gpx.mean_functions.Zero()) * likelihood
    fitted, history = gpx.fit(model=model, objective=..., train_data=to_gpjax(data), optim=...)
    prior = fitted.prior.kernel.to_prior()  # an NTKPrior, for every law of ntkbayes

weight_std, bias_std and ridge are positive GPJax parameters. To hold one of them fixed:

    kernel = eqx.tree_at(lambda k: k.ridge, kernel, replace_fn=paramax.non_trainable)
"""

import abc
from collections.abc import Hashable, Iterable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import lineax as lx
import numpy as np
from jaxtyping import Array, Float, Num

from ntkbayes.datasets import Dataset
from ntkbayes.errors import ConfigurationError, DataError, MissingDependencyError
from ntkbayes.kernels import MLPKernel, last_layer
from ntkbayes.networks import MLP
from ntkbayes.priors.prior import NTKPrior
from ntkbayes.ranges import Range, real

try:
    import gpjax
    import paramax
    from gpjax.kernels import AbstractKernel
    from gpjax.kernels.computations import AbstractKernelComputation
    from gpjax.parameters import PositiveReal, Real, val
except ImportError as error:
    raise MissingDependencyError("GPJax is not installed: `pip install 'gpjax>=1,<2'`") from error


# --- kernels --------------------------------------------------------------------------------------


class _Batched(AbstractKernelComputation):
    """All pairs of inputs in one recursion over layers, not pair by pair."""

    def _cross_covariance(
        self, kernel: "_NetworkKernel", x: Num[Array, "n d"], y: Num[Array, "m d"]
    ) -> Float[Array, "n m"]:
        return kernel.block(x, y)

    def _diagonal(
        self, kernel: "_NetworkKernel", inputs: Num[Array, "n d"]
    ) -> lx.AbstractLinearOperator:
        variances = lx.DiagonalLinearOperator(kernel.variances(inputs))
        return lx.TaggedLinearOperator(variances, lx.positive_semidefinite_tag)


class _NetworkKernel(AbstractKernel):
    """A GPJax kernel whose parameters are those of an `MLP`: the Θ/ridge of `to_prior()`.

    A bias_std of 0 is not positive, and stays fixed.
    """

    weight_std: Any
    bias_std: Any
    _fixed: Any  # the network's other arrays, which GPJax must not train
    _static: MLP = eqx.field(static=True)

    def __init__(self, network: MLP, active_dims: list[int] | slice | None):
        if not isinstance(network, MLP):
            raise ConfigurationError(
                "GPJax trains the scales of a network made by ntkbayes.networks.mlp, got "
                f"{type(network).__name__}"
            )
        weight_std, bias_std = (
            jnp.asarray(s, dtype=float) for s in (network.weight_std, network.bias_std)
        )
        has_biases = float(bias_std) != 0
        self.weight_std = PositiveReal(weight_std)
        self.bias_std = (
            PositiveReal(bias_std) if has_biases else paramax.non_trainable(Real(bias_std))
        )
        scaleless = eqx.tree_at(_scales, network, (1.0, 1.0))
        arrays, self._static = eqx.partition(scaleless, eqx.is_array)
        self._fixed = paramax.non_trainable(arrays)
        super().__init__(active_dims=active_dims, compute_engine=_BATCHED)

    @property
    def network(self) -> MLP:
        """The network at the current values of the parameters."""
        network = eqx.combine(paramax.unwrap(self._fixed), self._static)
        return eqx.tree_at(_scales, network, (val(self.weight_std), val(self.bias_std)))

    @abc.abstractmethod
    def to_prior(self) -> NTKPrior:
        """The Gaussian process with this kernel and mean 0, as a prior for the laws of ntkbayes."""

    def block(self, x: Num[Array, "n d"], y: Num[Array, "m d"]) -> Float[Array, "n m"]:
        """The kernel between all inputs of x and of y.

        Raises:
            DataError: the inputs are not matrices, or have different widths.
            PrecisionError: JAX is not in float64.
        """
        x, y = self._inputs(x), self._inputs(y)
        if x.shape[1] != y.shape[1]:
            raise DataError(
                f"inputs with {x.shape[1]} and {y.shape[1]} features; a kernel needs equal widths"
            )
        prior = self.to_prior()
        return prior.cross(x, y).ntk.dense() / prior.ridge

    def variances(self, x: Num[Array, "n d"]) -> Float[Array, " n"]:
        """The kernel between each input and itself. Raises as `block` does."""
        prior = self.to_prior()
        return prior.diagonal(self._inputs(x)).ntk / prior.ridge

    def __call__(self, x: Num[Array, " d"], y: Num[Array, " d"]) -> Float[Array, ""]:
        return self.block(x[None], y[None])[0, 0]

    def _inputs(self, x: Num[Array, "n d"]) -> Num[Array, "n d"]:
        if jnp.ndim(x) != 2:
            raise DataError(
                f"GPJax's inputs are matrices (n, d), got shape {jnp.shape(x)}; reshape images to "
                "(n, -1), or give them to a convolutional network by ntkbayes.NTKPrior"
            )
        return self.slice_input(x)


_BATCHED = _Batched()


def _scales(network: MLP) -> tuple[Any, Any]:
    return network.weight_std, network.bias_std


class NTKKernel(_NetworkKernel):
    """Θ/ridge, the covariance of the Bayesian prior (THEORY 6).

    Args:
        network: a fully connected network; its scales are where the parameters start.
        ridge: weight of ½‖θ − θ0‖², > 0.
        active_dims: the features that the network sees, all by default.

    Attributes:
        weight_std, bias_std, ridge: parameters; their values are `gpjax.parameters.val(...)`. A
            bias_std of 0 is not positive, and stays fixed.

    Raises:
        ConfigurationError: the network is not an `MLP`, or the ridge not positive.
    """

    ridge: Any

    def __init__(
        self,
        network: MLP,
        *,
        ridge: float = 1.0,
        active_dims: list[int] | slice | None = None,
    ):
        ridge = real("the ridge", ridge, Range.POSITIVE_FINITE)
        self.ridge = PositiveReal(jnp.asarray(ridge, dtype=float))
        super().__init__(network, active_dims)

    def to_prior(self) -> NTKPrior:
        return NTKPrior(MLPKernel(self.network), ridge=val(self.ridge))


class NNGPKernel(_NetworkKernel):
    """K, the covariance of the functions at initialisation.

    Args:
        network: a fully connected network; its scales are where the parameters start.
        active_dims: the features that the network sees, all by default.

    Attributes:
        weight_std, bias_std: parameters, as for `NTKKernel`.

    Raises:
        ConfigurationError: the network is not an `MLP`.
    """

    def __init__(self, network: MLP, *, active_dims: list[int] | slice | None = None):
        super().__init__(network, active_dims)

    def to_prior(self) -> NTKPrior:
        return NTKPrior(last_layer(MLPKernel(self.network)), ridge=1.0)


# --- data -----------------------------------------------------------------------------------------


def to_gpjax(data: Dataset) -> gpjax.Dataset:
    """The data for GPJax, with y (n, m): real targets unchanged, the probability of the second of two
    classes (n, 1), or one probability per class for more. Names and scaling are dropped."""
    is_binary = data.class_names is not None and data.num_classes == 2
    y = data.targets[:, 1:] if is_binary else data.targets
    return gpjax.Dataset(X=jnp.asarray(data.features), y=jnp.asarray(y))


def from_gpjax(
    data: gpjax.Dataset, *, class_names: Iterable[Hashable] | None = None, name: str = "data"
) -> Dataset:
    """GPJax's data as a `Dataset`: real targets, or, with class_names, classes as from `to_gpjax`.

    Args:
        data: inputs and targets.
        class_names: all classes, in the order of their columns.
        name: of the data, for reports.

    Raises:
        DataError: inputs or targets are missing or not finite; or, with class_names, the targets are not
            probabilities.
    """
    if data.X is None or data.y is None:
        raise DataError(
            "a Dataset has inputs and targets; one of X and y of this gpjax.Dataset is None"
        )
    features, y = np.asarray(data.X), np.asarray(data.y)
    if class_names is None:
        return Dataset.real(features, y, name=name)
    targets = np.hstack([1 - y, y]) if y.shape[1] == 1 else y
    return Dataset(features, targets, class_names=class_names, name=name)
