"""The README's Python example, as it stands."""

import re
from pathlib import Path

import numpy as np

README = Path(__file__).parents[1] / "README.md"


def test_the_example_runs_as_it_stands():
    text = README.read_text(encoding="utf-8")
    example, numbers = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict = {}
    exec(compile(example, str(README), "exec"), names)
    classes_at = names["test"].features
    table = names["comparison"].table()
    assert list(table.index) == ["MAP", "random init", "first order", "Laplace", "NUTS"]
    assert np.isfinite(table["nll"]).all()
    assert table.loc["NUTS", "variance_ratio"] == 1
    assert names["logits"].shape == (1000, len(classes_at), 3)
    exec(compile(numbers, str(README), "exec"), names)
    shown = names["scores"][["nll", "crps", "rmse", "coverage_90", "width_90"]].loc["Laplace"]
    assert " ".join(f"{value:.2f}" for value in shown) in " ".join(text.split())
