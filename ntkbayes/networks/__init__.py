"""Networks: `init(key, features) -> params`, `apply(params, features) -> logits`."""

from ntkbayes.networks.base import (
    FunctionNetwork,
    Network,
    Params,
    Reshaped,
    from_functions,
    require_same_shapes,
    require_sound,
    reshaped,
)
from ntkbayes.networks.cnn import CNN, cnn, flatten, global_average
from ntkbayes.networks.mlp import MLP, mlp
from ntkbayes.networks.part import PartialNetwork, part

__all__ = [
    "CNN",
    "MLP",
    "FunctionNetwork",
    "Network",
    "Params",
    "PartialNetwork",
    "Reshaped",
    "cnn",
    "flatten",
    "from_functions",
    "global_average",
    "mlp",
    "part",
    "require_same_shapes",
    "require_sound",
    "reshaped",
]
