"""`ntkbayes lazy`: what a new user types, right or wrong."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ntkbayes import datasets
from ntkbayes.app.cli import main
from ntkbayes.lazy import Trajectory
from ntkbayes.lazy import widths as study_module

QUICK = ("--widths", "8,16", "--seeds", "2", "--steps", "20", "--depth", "1", "--max-points", "12")


@pytest.fixture
def lazy(monkeypatch, capsys, tmp_path):
    """Runs `ntkbayes lazy` in an empty folder, within this process: code, output, messages."""
    monkeypatch.chdir(tmp_path)

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ntkbayes", "lazy", *map(str, words)])
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_help_shows_an_example_and_the_data_sets(lazy):
    code, out, _ = lazy("--help")
    assert code == 0
    assert "Example: ntkbayes lazy --data breast_cancer" in " ".join(out.split())
    assert ", ".join(datasets.NAMES) in " ".join(out.split())


def untrained(trainer, params, points, *, steps, shifted) -> Trajectory:
    """What a study would measure if drift fell as width^−1 and nothing grew; tests/test_lazy.py has
    networks that are really trained."""
    seeds, step = len(params[0][0]), np.array(steps)
    value = np.full((seeds, len(steps)), 1 / trainer.network.width)
    time = float(trainer.step_size) * step
    has_end = points.have_end(trainer.likelihood, float(trainer.ridge))
    series = dict.fromkeys(Trajectory.series_names(), value)
    return Trajectory(has_end=has_end, step=step, time=time, **series)


def test_own_csv_gives_verdicts_tables_and_figure_and_is_not_trained_again(lazy, monkeypatch):
    flowers = datasets.load("iris").take(range(30, 70))
    frame = pd.DataFrame(flowers.features, columns=flowers.feature_names)
    frame["kind"] = ["early" if label == 0 else "late" for label in flowers.labels]
    frame.to_csv("my.csv", index=False)
    monkeypatch.setattr(study_module, "follow", untrained)
    words = ("--data", "my.csv", "--target", "kind", *QUICK)
    code, out, err = lazy(*words)
    assert code == 0, err
    assert "figure: runs/my-lazy/lazy.png" in out
    for regime, finding in (
        ("ridge 0.1", r"lazy: drift falls as width\^-1\.00 .*within 0\.062 .* width 16"),
        ("no ridge, smoothing 0.2", "lazy: drift falls"),
        ("no ridge", "undecided: .* train longer"),
    ):
        assert re.search(f"^{regime}: {finding}", out, re.MULTILINE)
    assert "ridge 0.1, width 16 …" in err
    assert {path.name for path in Path("runs/my-lazy").iterdir()} == {
        *(".ntkbayes.lock", "lazy.csv", "lazy.json", "lazy.png", "lazy.svg", "runs", "study.json"),
        "options.toml",
    }
    settings = json.loads(Path("runs/my-lazy/lazy.json").read_text())["settings"]
    assert settings["command"].startswith("ntkbayes lazy --data my.csv")

    monkeypatch.setattr(study_module, "follow", lambda *_, **__: pytest.fail("trained again"))
    monkeypatch.setattr(study_module.plots, "write", lambda *_: None)
    code, again, _ = lazy(*words)
    assert (code, again) == (0, out)
    code, text, _ = lazy(*words, "--json")
    found = json.loads(text)
    assert code == 0
    assert found["paths"] == {"figure": "runs/my-lazy/lazy.png"}
    assert [row["verdict"] for row in found["table"]] == ["lazy", "lazy", "undecided", "lazy"]
    assert all(verdict in out for verdict in found["verdicts"])
    code, _, err = lazy(*words, "--ridge", "0.3")
    assert code == 1
    assert "runs/my-lazy holds a study with other settings (differing in: regimes)" in err


def test_images_of_a_folder_are_studied_as_they_are(lazy, monkeypatch):
    seen = []

    def follow(trainer, params, points, **settings) -> Trajectory:
        seen.append(np.concatenate([points.train, points.test]))
        return untrained(trainer, params, points, **settings)

    rng = np.random.default_rng(0)
    for j in range(16):
        folder = Path("my.photos") / ("cat", "dog")[j % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(1, 256, size=(3, 3), dtype=np.uint8)
        pixels[0, 0] = 0  # a corner that is always black
        Image.fromarray(pixels).save(folder / f"{j}.png")
    monkeypatch.setattr(study_module, "follow", follow)
    monkeypatch.setattr(study_module.plots, "write", lambda *_: None)
    code, out, err = lazy("--data", "my.photos/", *QUICK, "--quiet")
    assert code == 0, err
    assert out == f"figure: {Path('runs/my.photos-lazy/lazy.png')}\n"
    assert err == ""  # no word of a constant column
    assert {each.shape for each in seen} == {(12, 9)}
    assert min(map(np.min, seen)) == 0
    assert max(map(np.max, seen)) <= 1


def test_numbers_are_studied_in_two_regimes(lazy, monkeypatch):
    Path("y.csv").write_text("a,y\n" + "".join(f"{i % 5},{i * i / 7}\n" for i in range(16)))
    monkeypatch.setattr(study_module, "follow", untrained)
    monkeypatch.setattr(study_module.plots, "write", lambda *_: None)
    words = ("--data", "y.csv", "--target", "y", "--likelihood", "normal", *QUICK)
    code, out, err = lazy(*words, "--anchor", "zero", "--shifted", "--json")
    assert code == 0, err
    rows = json.loads(out)["table"]
    assert [row["regime"] for row in rows] == [
        "ridge 0.1 towards zero, shifted",
        "no ridge, shifted",
    ]
    code, _, err = lazy(*words, "--smoothing", "0.1")
    assert code == 1
    assert "--smoothing is for classes without order, not for --likelihood normal" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--data", "iriss"), r"unknown data set 'iriss'; known are: .*iris"),
        (("--data", "brids.csv", "--target", "y"), r"no file brids\.csv; check the path"),
        (("--data", "brids.csv"), r"name the column of the labels in brids\.csv with --target"),
        (("--widths", "64"), r"at least two different widths; got \[64\]"),
        (("--widths", "64,many"), r"--widths takes whole numbers .*; got '64,many'"),
        (("--ridge", "-1"), r"ridge must be at least 0 and finite; got -1\.0"),
        (("--anchor", "origin"), r"unknown anchor 'origin'; known are: init, zero"),
        (("--likelihood", "gauss"), r"unknown likelihood 'gauss'"),
        (("--likelihood", "normal"), r"--likelihood normal goes with a file"),
        (("--ridge", "0"), r"give a ridge > 0; got 0\.0"),
        (("--smoothing", "1.5"), r"must lie in \[0, 1\]; got 1\.5"),
        (("--seeds", "0"), r"num_seeds must be at least 1; got 0"),
        (("--steps", "1"), r"at least 10; got 1"),
        (("--activation", "rleu"), r"unknown activation 'rleu'; known are: relu"),
        (("--depth", "0"), r"depth must be at least 1; got 0"),
        (("--max-points", "0"), r"max_points must be at least 2; got 0"),
        (("--out", "file.txt/x"), r"cannot write .* file\.txt/x.*--out"),
    ],
)
def test_wrong_words_are_named_with_the_remedy(words, message, lazy):
    Path("file.txt").write_text("in the way")
    data = () if "--data" in words else ("--data", "iris")
    out = () if "--out" in words else ("--out", "out")
    code, _, err = lazy(*data, *words, *out)
    assert code == 1
    assert "Traceback" not in err
    assert re.search(message, err.splitlines()[-1])
    assert not Path("out").exists()
