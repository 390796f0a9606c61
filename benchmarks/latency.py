"""How long a user waits: whole processes, against another checkout in the same run.

    python benchmarks/latency.py [--before CHECKOUT] [--repeats 3] [--data wine digits]

Each command runs in a fresh process and an empty folder: with the cache of compiled programs empty
("cold") and full ("warm"), and in the other checkout, without any cache. Ratios are to that one. For
orientation, the same data by scikit-learn's GaussianProcessClassifier and by a NumPyro model.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).parents[1]
COMPARE = {  # with a ridge, which earlier versions do not choose
    "wine": ["--data", "wine", "--ridge", "0.1"],
    "digits": ["--data", "digits", "--train-size", "300", "--ridge", "0.1"],
}
FIRST_FIT = """
import jax, numpy as np
jax.config.update("jax_enable_x64", True)
import ntkbayes as nb
data = nb.datasets.load("iris")
print(nb.MAP().fit(nb.NTKPrior(nb.networks.mlp(), ridge=0.1), data).info.residual)
"""
SPLIT = """
import sys, numpy as np
from sklearn.datasets import load_wine, load_digits
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
x, y = {"wine": load_wine, "digits": load_digits}[sys.argv[1]](return_X_y=True)
size = 300 if sys.argv[1] == "digits" else None
x, y = x[:size], y[:size]
x, new, y, labels = train_test_split(x, y, test_size=0.25, random_state=0)
scaler = StandardScaler().fit(x)
x, new = scaler.transform(x), scaler.transform(new)
"""
SKLEARN = f"""{SPLIT}
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.gaussian_process.kernels import RBF, ConstantKernel
kernel = ConstantKernel(1.0) * RBF(x.shape[1] ** 0.5)
print(GaussianProcessClassifier(kernel, random_state=0).fit(x, y).score(new, labels))
"""
NUMPYRO = f"""{SPLIT}
import jax, jax.numpy as jnp, numpyro, numpyro.distributions as dist
from numpyro.infer import MCMC, NUTS
jax.config.update("jax_enable_x64", True)
gram = np.exp(-((x[:, None] - x[None]) ** 2).sum(2) / (2 * x.shape[1])) * 10
lower = jnp.asarray(np.linalg.cholesky(gram + 1e-8 * np.eye(len(x))))
def model():
    z = numpyro.sample("z", dist.Normal(0, 1).expand([len(x), y.max() + 1]).to_event(2))
    numpyro.sample("y", dist.Categorical(logits=lower @ z).to_event(1), obs=jnp.asarray(y))
chains = MCMC(NUTS(model), num_warmup=500, num_samples=1000, num_chains=4, progress_bar=False,
              chain_method="vectorized")
chains.run(jax.random.key(0))
print(chains.get_samples()["z"].shape)
"""


def seconds(command: list[str], checkout: Path, cache: str) -> float:
    """Of one process, whose output is of no interest unless it fails."""
    ours = ("JAX_", "NTKBAYES_", "PYTHONDONTWRITEBYTECODE")  # users keep bytecode
    own = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
    environment = own | {
        "PYTHONPATH": str(checkout),
        "NTKBAYES_CACHE_DIR": cache,
        "JAX_PLATFORMS": "cpu",
    }
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        done = subprocess.run(
            [sys.executable, *command],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        took = time.perf_counter() - begin
    if done.returncode:
        raise SystemExit(f"{command} failed:\n{done.stderr}")
    return took


def compare(name: str, before: Path | None, repeats: int) -> None:
    """One row per state of the cache."""
    command = ["-m", "ntkbayes", "compare", *COMPARE[name]]
    times: dict[str, list[float]] = {"before": [], "cold": [], "warm": []}
    for _ in range(repeats):
        if before is not None:
            times["before"].append(seconds(command, before, "off"))
        with tempfile.TemporaryDirectory() as cache:
            times["cold"].append(seconds(command, HERE, cache))
            times["warm"].append(seconds(command, HERE, cache))
    report(f"compare {' '.join(COMPARE[name])}", times)


def report(what: str, times: dict[str, list[float]]) -> None:
    """Medians, and their ratios to the first that was measured."""
    medians = {name: float(np.median(taken)) for name, taken in times.items() if taken}
    reference = next(iter(medians.values()))
    for name, median in medians.items():
        print(f"{what:52s} {name:8s} {median:8.2f} s {median / reference:8.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", type=Path, help="another checkout")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--data", nargs="*", default=list(COMPARE), choices=list(COMPARE))
    given = parser.parse_args()
    before = given.before and given.before.resolve()
    checkouts = {"before": before, "now": HERE} if before else {"now": HERE}
    for what, command in {
        "--help": ["-m", "ntkbayes", "--help"],
        "first nb.MAP().fit, iris": ["-c", FIRST_FIT],
    }.items():
        times: dict[str, list[float]] = {name: [] for name in checkouts}
        for _ in range(given.repeats):
            for name, checkout in checkouts.items():
                times[name].append(seconds(command, checkout, "off"))
        report(what, times)
    for name in given.data:
        compare(name, before, given.repeats)
        for peer, script in {"scikit-learn GPC": SKLEARN, "NumPyro": NUMPYRO}.items():
            report(f"{peer}, {name}", {"": [seconds(["-c", script, name], HERE, "off")]})


if __name__ == "__main__":
    main()
