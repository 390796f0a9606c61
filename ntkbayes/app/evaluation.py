"""What a study keeps of each law that it fits."""

from jaxtyping import PRNGKeyArray

from ntkbayes.comparison import key_of
from ntkbayes.datasets import Dataset
from ntkbayes.laws import Law, SampledLaw
from ntkbayes.linalg import split_key
from ntkbayes.predictions import predict, surface
from ntkbayes.storage import LawRecord


def evaluated(
    law: Law,
    name: str,
    train: Dataset,
    test: Dataset,
    draw_key: PRNGKeyArray,
    seconds: float,
    compile_seconds: float,
) -> LawRecord:
    """A law's predictions at test and training points, and over the plane if there are two features.

    Args:
        train, test: points that it was fitted to, and others.
        draw_key: of all laws of a study; each has its own part by its name.
        seconds, compile_seconds: of the fit.
    """
    key = key_of(draw_key, name)
    test_key, train_key, plane_key = split_key(key, 3)
    plane = None
    if train.num_features == 2 and train.class_names is not None:
        draws = min(law.num_draws, 500) if isinstance(law, SampledLaw) else 500
        plane = surface(law, train, key=plane_key, num_draws=draws)
    held_out = predict(
        law, test, key=test_key, name=name, seconds=seconds, compile_seconds=compile_seconds
    )
    return LawRecord(held_out, predict(law, train, key=train_key, name=name, held_out=False), plane)
