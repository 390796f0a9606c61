"""Networks: `init(key, features) -> params`, `apply(params, features) -> logits`."""

from ntkbayes.networks.base import Network, Params
from ntkbayes.networks.mlp import MLP, mlp

__all__ = ["MLP", "Network", "Params", "mlp"]
