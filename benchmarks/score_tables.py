"""Tables of scores in Markdown, as docs/benchmarks.md has them."""

import pandas as pd

from ntkbayes.scores.names import called

_BESIDE = "\N{NO-BREAK SPACE}"
_HEADS = {"gap": "gap", "tv": "TV", "variance_ratio": "variance ratio", "energy": "energy"}


def markdown(mean: pd.DataFrame, error: pd.DataFrame, *, shown: tuple[str, ...]) -> str:
    """One row per law.

    Args:
        mean, error: of scores in columns, by law; nan where there is none.
        shown: columns, in order. A gap of more than twice its error is bold.
    """
    heads = [_HEADS.get(name, called(name).short) for name in shown]
    lines = ["| " + " | ".join(["law", *heads]) + " |", "| --- |" + " ---: |" * len(heads)]
    for law in mean.index:
        cells = [cell(mean.loc[law, name], error.loc[law, name], name) for name in shown]
        lines.append("| " + " | ".join([str(law), *cells]) + " |")
    return "\n".join(lines)


def cell(value: float, error: float, name: str = "") -> str:
    """A number with its standard error, if it has one, as in .991 ± .009."""
    if pd.isna(value):
        return ""
    text, spread = number(value, signed=name == "gap"), number(error)
    is_bold = name == "gap" and abs(value) > 2 * error and text != "0"
    if spread not in ("nan", "0"):
        text += f"{_BESIDE}±{_BESIDE}{spread}"
    return f"**{text}**" if is_bold else text


def number(value: float, *, signed: bool = False) -> str:
    """Three digits after the point, and no 0 before it."""
    text = f"{value:{'+' if signed else ''}.3f}"
    if float(text) == 0:
        return "0"
    sign, digits = (text[0], text[1:]) if text[0] in "+-" else ("", text)
    return sign.replace("-", "−") + digits.removeprefix("0")
