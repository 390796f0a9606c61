"""laplace-torch on the images that `benchmarks/digits.py --export FOLDER` wrote.

    python -m venv peers && peers/bin/pip install laplace-torch scikit-learn pandas
    peers/bin/python benchmarks/peers/laplace_torch.py FOLDER

The same convolutional network, trained by Adam with weight decay; Laplace with Kronecker factors over
all weights and over the last layer, its prior precision by marginal likelihood, predictions by the
generalised linear model with the probit approximation, as its documentation advises.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from laplace import Laplace
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

DECAY = 0.1  # of the summed loss
SETS = ("test", "corrupted", "shuffled")
BATCH = 50  # images whose Jacobians are in memory at once


def main() -> None:
    tables = [scores(path) for path in sorted(Path(sys.argv[1]).glob("split*.npz"))]
    together = pd.concat(tables, keys=range(len(tables)))
    mean, error = (
        getattr(together.groupby(level=1, sort=False), statistic)() for statistic in ("mean", "sem")
    )
    cells = mean.map("{:.3f}".format)
    if len(tables) > 1:
        cells = cells + error.map(" ± {:.3f}".format)
    print(cells.to_string())


def scores(path: Path) -> pd.DataFrame:
    torch.manual_seed(0)
    arrays = np.load(path)
    x = {
        name: torch.tensor(arrays[f"{name}_x"], dtype=torch.float32).reshape(-1, 1, 8, 8)
        for name in ("train", *SETS)
    }
    y = {name: torch.tensor(arrays[f"{name}_y"], dtype=torch.long) for name in x}
    model = trained(x["train"], y["train"])
    predict = {"the network": lambda v: torch.softmax(model(v), dim=1)}
    loader = DataLoader(TensorDataset(x["train"], y["train"]), batch_size=100)
    for part in ("all", "last_layer"):
        laplace = Laplace(model, "classification", subset_of_weights=part, hessian_structure="kron")
        laplace.fit(loader)
        laplace.optimize_prior_precision(method="marglik")
        predict[f"KFAC Laplace, {part.replace('_', ' ')}"] = lambda v, law=laplace: law(
            v, pred_type="glm", link_approx="probit"
        )
    rows = {}
    for name, probabilities in predict.items():
        with torch.no_grad():
            p = {k: in_batches(probabilities, x[k]).numpy().astype(float) for k in SETS}
        row: dict[str, float] = {}
        for where in ("test", "corrupted"):
            row |= {f"{k}, {where}": v for k, v in scored(p[where], y[where].numpy()).items()}
        entropies = [
            -np.sum(p[k] * np.log(np.maximum(p[k], 1e-300)), 1) for k in ("test", "shuffled")
        ]
        outside = np.repeat([0, 1], [len(entropies[0]), len(entropies[1])])
        rows[name] = {**row, "AUROC": roc_auc_score(outside, np.concatenate(entropies))}
    return pd.DataFrame.from_dict(rows, orient="index")


def in_batches(probabilities, x: torch.Tensor) -> torch.Tensor:
    return torch.cat([probabilities(part) for part in x.split(BATCH)])


def trained(x: torch.Tensor, y: torch.Tensor) -> nn.Module:
    model = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(1024, 50),
        nn.ReLU(),
        nn.Linear(50, 10),
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    loader = DataLoader(TensorDataset(x, y), batch_size=32, shuffle=True)
    for _ in range(60):
        for features, labels in loader:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(features), labels)
            squares = sum((p**2).sum() for p in model.parameters())
            (loss + DECAY / 2 / len(x) * squares).backward()
            optimizer.step()
    return model.eval()


def scored(p: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    one_hot = np.eye(p.shape[1])[labels]
    confidence, right = p.max(1), p.argmax(1) == labels
    bins = np.minimum((confidence * 15).astype(int), 14)
    gaps = [abs(np.sum(right[bins == b]) - np.sum(confidence[bins == b])) for b in range(15)]
    return {
        "nll": -np.mean(np.log(np.maximum(p[np.arange(len(p)), labels], 1e-300))),
        "brier": np.mean(np.sum((p - one_hot) ** 2, axis=1)),
        "ece": float(np.sum(gaps) / len(p)),
    }


if __name__ == "__main__":
    main()
