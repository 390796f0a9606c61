"""Options from a file, results for machines, quiet runs, completion, exit codes."""

import json
import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from test_cli import COMMAND, ntkbayes  # noqa: F401 (a fixture)

from ntkbayes import datasets
from ntkbayes.app.cli import options, reference
from ntkbayes.app.methods import METHODS
from ntkbayes.networks import activations

FILE = """
data = "moons"
train_size = 24
depth = 1
ridge = 0.5
laws = ["map"]
baselines = false
"""


def strict(text: str):
    """JSON without the constants that JSON does not have."""

    def refuse(constant):
        raise AssertionError(constant)

    return json.loads(text, parse_constant=refuse)


@pytest.fixture
def file(ntkbayes):  # noqa: F811
    """A configuration file in the empty folder of the test."""
    path = Path("mine.toml")
    path.write_text(FILE)
    return path


def test_file_words_and_the_file_that_a_run_leaves_are_one_study(
    file,
    ntkbayes,  # noqa: F811
):
    # A folder refuses another study: laws that it has already are of this one.
    first = strict(ntkbayes("compare", "--config", file, "--out", "o", "--json").out)
    assert (first["ridge"]["value"], first["ridge"]["reason"]) == (0.5, "as given")
    assert [row["law"] for row in first["table"]] == ["MAP"]
    assert (first["reference"], first["paths"]) == ("MAP", {"report": str(Path("o/report.html"))})
    kept = tomllib.loads(Path("o/options.toml").read_text())
    assert float(kept["ridge"]) == 0.5
    assert (kept["data"], kept["baselines"], kept["test-share"]) == ("moons", False, 0.25)
    assert "draws" not in kept  # of which this law makes no use

    words = ("--data", "moons", "--train-size", 24, "--depth", 1, "--laws", "map", "--no-baselines")
    done = ntkbayes("compare", *words, "--ridge", 0.5, "--out", "o", "--quiet")
    assert (done.code, done.out, done.err) == (0, f"report: {Path('o/report.html')}\n", "")
    assert tomllib.loads(Path("o/options.toml").read_text()) == kept

    again = ntkbayes("compare", "--config", "o/options.toml")
    assert "NLL (nats)" in again.out
    assert "MAP, already fitted" in again.err
    assert tomllib.loads(Path("o/options.toml").read_text()) == kept

    # An option on the command line goes before the file's.
    error = ntkbayes("compare", "--config", file, "--ridge", 2, "--out", "o").error
    assert "o holds a study with other settings (differing in: " in error


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "rigde = 1.0",
            r"mine\.toml has the key 'rigde', which is no option of .*compare.*"
            r"did you mean 'ridge'\?",
        ),
        ("workers = 2", r"mine\.toml has the key 'workers', which is no option"),
        ("config = 'mine.toml'", r"the key 'config', which is no option"),
        ("depth = 'two'", r"in mine\.toml, depth = 'two': .*int"),
        ("depth = 1.5", r"in mine\.toml, depth = 1\.5: "),
        ("depth = true", r"in mine\.toml, depth = True: true and false are for options that"),
        ("baselines = 'no'", r"in mine\.toml, baselines = 'no': true and false"),
        ("depth = [1, 2]", r"in mine\.toml, depth = \[1, 2\]"),
        ("[network]\ndepth = 2", r"mine\.toml has the key 'network'"),
        ("data = 2020-01-01", r"in mine\.toml, data = .*: not a text or a number"),
        ("train-size = 24\ntrain_size = 30", r"mine\.toml has 'train_size' twice"),
        ("depth = ", r"cannot read the configuration file mine\.toml: "),
        ("draws = 9\nlaws = 'map'\ndata = 'moons'", r"--draws 9 is for laws that draw"),
        ("data = 'mons'", r"unknown data set 'mons'; known are: .*; did you mean 'moons'\?"),
        ("model = 'm.py'\nseed = 3", r"a model file has its own settings: .* leave out --seed"),
        (None, r"cannot read the configuration file mine\.toml: No such file"),
    ],
)
def test_what_is_wrong_in_a_file_is_named_with_file_and_key(text, message, ntkbayes):  # noqa: F811
    if text is not None:
        Path("mine.toml").write_text(text)
    error = ntkbayes("compare", "--config", "mine.toml", "--out", "o").error
    assert re.search(message, error), error
    assert not Path("o").exists()


def test_a_sweep_takes_several_data_sets_from_a_file(ntkbayes):  # noqa: F811
    Path("s.toml").write_text('data = ["iris", "wnie"]\nridge = 1\n')
    assert "unknown data set 'wnie'" in ntkbayes("sweep", "--config", "s.toml").error


def complete(words: str) -> list[str]:
    """What bash would offer after these words."""
    variables = {"COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    done = subprocess.run(
        [COMMAND],
        env={**os.environ, "_NTKBAYES_COMPLETE": "complete_bash", **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


def test_shells_complete_commands_options_and_names():
    assert complete("ntkbayes comp") == ["compare"]
    assert "--ridge" in complete("ntkbayes compare --ri")
    assert complete("ntkbayes compare --data br") == ["breast_cancer"]
    assert complete("ntkbayes compare --laws map,lap") == ["map,laplace"]
    assert complete("ntkbayes lazy --activation ge") == ["gelu"]


def test_names_to_complete_are_those_that_exist():
    assert options.DATA_NAMES == datasets.NAMES
    assert options.ACTIVATION_NAMES == activations.NAMES
    assert tuple(METHODS) == options.LAW_NAMES


def test_the_reference_shows_every_command_with_its_help():
    page = reference.page()
    for command in ("compare", "sweep", "report", "lazy"):
        assert f"## ntkbayes {command}\n" in page
    assert "--weight-std" in page
    assert "Exit codes: 0 done" in " ".join(page.split())


def test_exit_codes_are_those_that_the_help_tells(ntkbayes):  # noqa: F811
    told = " ".join(ntkbayes("--help").out.split())
    assert re.search(r"Exit codes: 0 done; 1 .*; 2 .*; 130 stopped", told)
    assert ntkbayes("--version").code == 0
    assert ntkbayes("compare", "--data", "iriss").code == 1
    assert ntkbayes("compare", "--rigde", "1").code == 2
    said = ntkbayes("compare", "--rigde", "1").err
    assert re.search(r"No such option: --rigde.*(Did you mean|Possible options:) --ridge", said)
