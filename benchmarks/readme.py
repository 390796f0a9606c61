"""The README's figure, drawn from a run of its example.

    python benchmarks/readme.py [--out docs/_static/petals.png]

Prints the example's table, the size of the figure, and the mean epistemic uncertainty over the plane.
"""

import argparse
import re
from pathlib import Path
from typing import Any

import jax

jax.config.update("jax_enable_x64", True)

from PIL import Image

import ntkbayes as nb
from ntkbayes import figures
from ntkbayes.predictions.plane import surface

ROOT = Path(__file__).parents[1]
SHOWN = ("random init", "Laplace", "NUTS")


def example() -> dict[str, Any]:
    """Names that the example defines."""
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(block, "README.md", "exec"), names)
    return names


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "_static" / "petals.png")
    out = parser.parse_args().out

    names = example()
    predictions = {name: names["comparison"].predictions[name] for name in SHOWN}
    key = jax.random.key(1)
    surfaces = {
        name: surface(names["laws"][name], names["train"], key=jax.random.clone(key))
        for name in SHOWN
    }
    figure = figures.surfaces(nb.Comparison(predictions, reference="NUTS", surfaces=surfaces))
    for axes in figure.axes:
        axes.set_xlabel(axes.get_xlabel().replace("Feature 1", "Petal length"))
        axes.set_ylabel(axes.get_ylabel().replace("Feature 2", "Petal width"))
    figure.savefig(out, dpi=110)
    with Image.open(out) as image:  # a palette, to keep the file small
        image.convert("RGB").quantize(256).save(out, optimize=True)
    print(f"{out}: {out.stat().st_size / 1024:.0f} kB")
    for name, plane in surfaces.items():
        print(f"{name}: epistemic uncertainty {plane.epistemic.mean():.3f} nats on average")


if __name__ == "__main__":
    main()
