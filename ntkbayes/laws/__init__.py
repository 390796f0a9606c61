"""Laws: distributions over logit functions, and the methods that obtain them."""

from ntkbayes.laws.base import Law, Method
from ntkbayes.laws.finite_ensemble import FiniteEnsemble
from ntkbayes.laws.laplace import Laplace
from ntkbayes.laws.nuts import NUTS
from ntkbayes.laws.point import MAP
from ntkbayes.laws.random_init import FirstOrder, RandomInit

__all__ = ["MAP", "NUTS", "FiniteEnsemble", "FirstOrder", "Laplace", "Law", "Method", "RandomInit"]
