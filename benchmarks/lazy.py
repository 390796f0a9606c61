"""The four claims of THEORY 1, measured on real networks of two hidden layers.

* Laziness (claims 1, 2 and 4): twenty points in five dimensions with random labels of three classes,
  trained to the end with a ridge or smoothed targets: how drift, and the gap to the linearisation,
  fall with width.
* Growth (claims 1 and 3): the same in two dimensions, where conflicting neighbours take long to fit:
  without ridge on one-hot targets drift and logits keep growing, with a ridge they stop.
* As a picture, the six points on the circle of Yu, Tian and Chen (2025), with alternating labels.

    python benchmarks/lazy.py [--widths 64,128,256,512,1024] [--steps 10000] [--out FOLDER]
"""

import argparse
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
import numpy as np

jax.config.update("jax_enable_x64", True)

import ntkbayes as nb
from ntkbayes.lazy import PowerLaw, Regime
from ntkbayes.lazy.measure import Points, follow, initialise, recorded_steps
from ntkbayes.lazy.result import LazyResult
from ntkbayes.lazy.widths import LazyStudy, four_regimes
from ntkbayes.training.networks import Trainer, stable_step_size

RIDGE, SMOOTHING = 0.2, 0.2


def random_labels(num_features: int) -> nb.Dataset:
    """30 points, 20 of them to train on."""
    rng = np.random.default_rng(0)
    labels = np.arange(30) % 3
    features = rng.normal(size=(30, num_features))
    return nb.Dataset(features, labels, name=f"random labels in {num_features} dimensions")


@contextmanager
def timed(what: str) -> Iterator[None]:
    begin = time.perf_counter()
    yield
    print(f"  {what}: {time.perf_counter() - begin:.1f} s", flush=True)


def exponent(result: LazyResult, regime: Regime, name: str) -> PowerLaw:
    """Of a series at the final time, against width."""
    by_width = result.trajectories[regime]
    final = np.stack([getattr(t, name)[:, -1] for t in by_width.values()])
    return PowerLaw.fit(np.array(list(by_width), float), final)


def check(claim: str, value: float, holds: bool) -> bool:
    print(f"  {'holds' if holds else 'FAILS'}  {claim}: {value:.2f}")
    return holds


def print_table(result: LazyResult) -> None:
    """Means over seeds at the end of training; variation: the worst of all seeds."""
    print(f"\n{'regime':<26}{'width':>6}{'drift':>9}{'× t/10':>8}{'logit':>8}{'× t/10':>8}", end="")
    print(f"{'gap':>9}{'variation':>11}")
    for regime, by_width in result.trajectories.items():
        for width, t in by_width.items():
            drift, logit, gap = (
                getattr(t, name)[:, -1].mean()
                for name in ("drift_train", "largest_logit", "gap_test")
            )
            print(
                f"{regime!s:<26}{width:>6}{drift:>9.3g}{t.growth(t.drift_train):>8.2f}{logit:>8.3g}"
                f"{t.growth(t.largest_logit):>8.2f}{gap:>9.3g}{t.worst_variation[:, -1].max():>11.3g}"
            )
    print()
    for verdict in result.verdicts:
        print(f"  {verdict}")
    print()


def laziness(result: LazyResult) -> bool:
    """Exponents against width. Without ridge the networks and their linearisations both reproduce
    the training targets, so only the test points distinguish them."""
    passed = []
    for regime in result.trajectories:
        names = ["drift_train", "drift_test", "gap_test"]
        for name in [*names, "gap_train"] if regime.ridge > 0 else names:
            law = exponent(result, regime, name)
            claim = f"{regime}: exponent of {name} [{law.lower:.2f}, {law.upper:.2f}] ≤ −0.4"
            passed.append(check(claim, law.exponent, law.exponent <= -0.4))
    return all(passed)


def growth(result: LazyResult) -> bool:
    """The effect of ten times the training time at the largest width."""
    passed = []
    for regime, by_width in result.trajectories.items():
        widest = by_width[max(by_width)]
        drift, logit = widest.growth(widest.drift_train), widest.growth(widest.largest_logit)
        at = f"{regime}: at width {max(by_width)} and 10 × the time,"
        if regime.ridge > 0:
            passed += [
                check(f"{at} drift ≤ 1.1 times", drift, drift <= 1.1),
                check(f"{at} largest logit ≤ 1.1 times", logit, logit <= 1.1),
            ]
        else:
            passed += [
                check(f"{at} drift ≥ 3 times", drift, drift >= 3),
                check(f"{at} largest logit > 1.1 times", logit, logit > 1.1),
            ]
    return all(passed)


def circle(width: int, num_steps: int) -> None:
    """Six points on the circle: three hidden layers, one logit, alternating labels."""
    print(f"\nsix points on the circle, three hidden layers of {width}, drift and largest logit")
    angles = np.arange(6) * np.pi / 3
    data = nb.Dataset(np.stack([np.cos(angles), np.sin(angles)], 1), np.arange(6) % 2)
    network = nb.networks.mlp(depth=3, width=width)
    likelihood = nb.likelihood.Bernoulli()
    key = jax.random.key(0)
    for regime in four_regimes(ridge=RIDGE, smoothing=SMOOTHING):
        targets = data.smooth(regime.smoothing) if regime.smoothing else data
        points = Points.build(targets, data, likelihood, num_probes=6, key=key)
        params = initialise(network, points, key, 1)
        step_size = stable_step_size(network, params, points.train, likelihood, RIDGE)
        trainer = Trainer(network, likelihood, ridge=regime.ridge, step_size=step_size)
        steps = recorded_steps(num_steps, per_decade=1, decades=3)
        t = follow(trainer, params, points, steps=steps)
        row = "".join(
            f"   t = {time:7.3g}: {drift:6.3f} {logit:6.2f}"
            for time, drift, logit in zip(t.time, t.drift_train[0], t.largest_logit[0], strict=True)
        )
        print(f"  {regime!s:<26}{row}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--widths", default="64,128,256,512,1024")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--circle-width", type=int, default=256, help="0 leaves it out")
    parser.add_argument("--out", type=Path, help="keep figure and tables here")
    options = parser.parse_args()
    warnings.simplefilter("ignore", nb.errors.DataWarning)

    begin = time.perf_counter()
    regimes = four_regimes(ridge=RIDGE, smoothing=SMOOTHING)
    parts: dict[str, tuple[int, Callable[[LazyResult], bool], list[Regime]]] = {
        "laziness": (5, laziness, [r for r in regimes if r.ridge or r.smoothing]),
        "growth": (2, growth, [regime for regime in regimes if not regime.smoothing]),
    }
    passed = True
    for name, (num_features, judge, chosen) in parts.items():
        data = random_labels(num_features)
        print(f"\n{name}: {data.name}")
        study = LazyStudy(
            data=data,
            widths=tuple(int(width) for width in options.widths.split(",")),
            regimes=tuple(chosen),
            num_seeds=options.seeds,
            num_steps=options.steps,
            test_share=1 / 3,
        )
        with tempfile.TemporaryDirectory() as scratch:
            folder = options.out / name if options.out else scratch
            result = study.run(folder, announce=timed)
        print_table(result)
        passed = judge(result) and passed
    if options.circle_width:
        circle(options.circle_width, options.steps)
    print(f"\n{time.perf_counter() - begin:.0f} s in all")
    raise SystemExit(0 if passed else 1)


if __name__ == "__main__":
    main()
