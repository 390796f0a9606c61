"""The README's Python example, as it stands."""

import re
from pathlib import Path

import numpy as np

README = Path(__file__).parents[1] / "README.md"


def test_the_example_runs_as_it_stands():
    (example,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    names: dict = {}
    exec(compile(example, str(README), "exec"), names)
    table = names["comparison"].table()
    assert list(table.index) == ["MAP", "random init", "first order", "Laplace", "NUTS"]
    assert np.isfinite(table["nll"]).all()
    assert table.loc["NUTS", "variance_ratio"] == 1
    assert names["logits"].shape == (1000, len(names["test"].features), 3)
