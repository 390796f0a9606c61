"""Noisy data sets: two simulated, whose truth is known, and two that come with installed packages."""

from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from sklearn.datasets import load_diabetes

import ntkbayes as nb


def gaussians(seed: int) -> nb.Dataset:
    """600 points in 13 dimensions: two overlapping Gaussians. The best error, a plane's, is .30."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, 600)
    direction = rng.normal(size=13)
    direction *= 0.5244 / np.linalg.norm(direction)  # Φ(−0.5244) = .30
    features = rng.normal(size=(600, 13)) + np.where(labels, 1, -1)[:, None] * direction
    return nb.Dataset(features, labels, name="gaussians")


def waves(seed: int) -> nb.Dataset:
    """600 points in 5 dimensions with the logit (sin 2x₁ + x₂ x₃), far from linear: an error of .31 at
    best."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(600, 5))
    logits = np.sin(2 * features[:, 0]) + features[:, 1] * features[:, 2]
    labels = rng.uniform(size=600) < 1 / (1 + np.exp(-logits))
    return nb.Dataset(features, labels.astype(int), name="waves")


def diabetes(_seed: int) -> nb.Dataset:
    """scikit-learn's 442 patients: whether the disease progresses by more than the median."""
    patients = load_diabetes()
    more = patients.target > np.median(patients.target)
    return nb.Dataset(patients.data, more.astype(int), name="diabetes")


def stocks(_seed: int) -> nb.Dataset:
    """matplotlib's monthly prices: whether the S&P 500 rises, from the returns of the month before."""
    path = Path(matplotlib.get_data_path())
    prices = pd.read_csv(
        path / "sample_data/Stocks.csv", comment="#", index_col=0, parse_dates=True
    )
    prices = prices[prices.index.day == 1].dropna(axis=1)  # no dividends, and what has all months
    returns = np.log(prices).diff().dropna()
    rises = (returns["^GSPC"].shift(-1)[:-1] > 0).astype(int)
    return nb.Dataset(returns[:-1].to_numpy(), rises.to_numpy(), name="stocks")


NOISY: dict[str, Callable[[int], nb.Dataset]] = {
    "gaussians": gaussians,
    "waves": waves,
    "diabetes": diabetes,
    "stocks": stocks,
}
