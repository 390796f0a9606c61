"""The command line: what a new user types, right or wrong."""

import gc
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest
from rich.table import Table

from ntkbayes import datasets, storage
from ntkbayes.app import cli
from ntkbayes.app.cli import interruption, main, terminal
from ntkbayes.app.methods import METHODS, default_methods
from ntkbayes.laws import MAP, Laplace
from ntkbayes.selection import RidgeByEvidence, RidgeChoice

COMMAND = Path(sys.executable).with_name("ntkbayes")
STOPPED = "stopped; the same command resumes from what is already finished"
SMALL = ("--depth", "1", "--laws", "map", "--no-baselines")
QUICK = (*SMALL, "--ridge", "0.1")


class Outcome:
    def __init__(self, code: int, out: str, err: str):
        self.code, self.out, self.err = code, out, err

    @property
    def error(self) -> str:
        """The one line that says what went wrong."""
        assert self.code == 1, self.err
        assert "Traceback" not in self.out + self.err
        *before, last = self.err.splitlines()
        assert last.startswith("error: "), self.err
        assert not [line for line in before if not re.search(r"( …|: \d+\.\d s)$", line)], self.err
        return last


@pytest.fixture
def ntkbayes(monkeypatch, capsys, tmp_path):
    """Runs a command in an empty folder, within this process."""
    monkeypatch.chdir(tmp_path)

    def run(*words: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["ntkbayes", *map(str, words)])
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


@pytest.fixture
def birds() -> pd.DataFrame:
    """Own data: column names of all kinds, labels that are words, one row twice."""
    rng = np.random.default_rng(0)
    kinds = np.repeat(["red kite", "buzzard", "o'wl"], 12)
    features = rng.normal(size=(36, 3)) + 2 * np.repeat(np.eye(3), 12, axis=0)
    frame = pd.DataFrame(features, columns=["Flügel (cm)", "x_2", "area, m²"])
    frame["Species name"] = kinds
    return pd.concat([frame, frame[:1]], ignore_index=True)


@pytest.fixture
def compare(ntkbayes, birds):
    """`ntkbayes compare` on a changed CSV of birds."""

    def run(frame: pd.DataFrame, *words: object, target: str = "Species name") -> Outcome:
        frame.to_csv("birds.csv", index=False)
        options = ("--data", "birds.csv", "--target", target, "--out", "out")
        return ntkbayes("compare", *options, *(SMALL if "--ridge" in words else QUICK), *words)

    return run


# --- what works -----------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [(), ("compare",), ("report",)])
def test_help_shows_an_example(command, ntkbayes):
    done = ntkbayes(*command, "--help")
    assert done.code == 0
    assert re.search(r"Example: ntkbayes \w+", done.out)


def test_no_command_shows_help(ntkbayes):
    done = ntkbayes()
    assert "compare" in done.out + done.err
    assert "Traceback" not in done.err


def test_own_csv_with_words_as_labels(compare, birds):
    done = compare(birds)
    assert done.code == 0, done.err
    assert "report: out/report.html" in done.out
    assert "MAP" in done.out
    assert set(storage.load("out").predictions["MAP"].class_names) == set(birds["Species name"])


def test_folder_is_named_after_the_data_or_the_model_file(ntkbayes, birds):
    Path("data").mkdir()
    birds.to_csv("data/birds.csv", index=False)
    Path("finches.py").write_text(
        "import ntkbayes as nb\n"
        "network = nb.networks.mlp(depth=1)\n"
        "study = nb.Study(data=nb.datasets.load('iris'), prior=nb.NTKPrior(network, ridge=0.1),\n"
        "    methods={'MAP': nb.MAP()}, baselines=False)\n"
    )
    own = ("--data", "data/birds.csv", "--target", "Species name", *QUICK)
    for words, folder in (
        (("--data", "iris", *QUICK), "runs/iris"),
        (own, "runs/birds"),
        (("--model", "finches.py"), "runs/finches"),
    ):
        done = ntkbayes("compare", *words)
        assert done.code == 0, done.err
        assert f"report: {folder}/report.html" in done.out
        assert set(storage.load(folder).predictions) == {"MAP"}


def test_own_parquet_gives_what_the_csv_gives(compare, ntkbayes, birds):
    birds.to_parquet("birds.parquet")
    words = ("--data", "birds.parquet", "--target", "Species name", "--out", "from parquet")
    assert ntkbayes("compare", *words, *QUICK).code == 0
    assert compare(birds).code == 0
    tables = [pd.read_csv(Path(out, "comparison.csv")) for out in ("out", "from parquet")]
    pd.testing.assert_frame_equal(
        *(table.drop(columns=["seconds", "compile_seconds"]) for table in tables)
    )


def test_a_file_of_test_points_is_where_laws_are_compared(compare, birds):
    rows = np.arange(len(birds)) % 3 == 0
    birds[rows].iloc[:, ::-1].to_csv("new.csv", index=False)  # columns in another order
    done = compare(birds[~rows], "--test", "new.csv")
    assert done.code == 0, done.err
    found = storage.load("out").predictions["MAP"]
    kinds = np.array(found.class_names)[found.targets.argmax(axis=1)]
    assert list(kinds) == list(birds[rows]["Species name"])
    options = Path("out/options.toml").read_text()
    assert 'test = "new.csv"' in options
    assert "test-share" not in options


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--test", "new.csv", "--test-share", "0.3"), "leave out --test-share"),
        (("--test", "nowhere.csv"), "there is no file nowhere.csv"),
        (("--test", "other.csv"), "'x_2'.* missing"),
        (("--test", "strange.csv"), "unseen label 'dodo'"),
    ],
)
def test_wrong_test_points_are_told(words, message, compare, birds):
    birds.to_csv("new.csv", index=False)
    birds.rename(columns={"x_2": "x_3"}).to_csv("other.csv", index=False)
    birds.replace("buzzard", "dodo").to_csv("strange.csv", index=False)
    done = compare(birds, *words)
    assert done.code == 1
    assert re.search(message, done.err.replace("\n", " ")), done.err


@pytest.fixture
def ringed(birds) -> pd.DataFrame:
    """Birds with a column of words, codes, an identifier, and missing values."""
    frame = birds.assign(habitat=["moor", "wood"] * 18 + ["moor"], ring=range(500, 537))
    frame["code"] = [7, 7, 8, 9] * 9 + [7]
    frame.loc[[3, 8], "x_2"] = None
    frame.loc[5, "habitat"] = None
    return frame


TABLE = ("--drop", "ring", "--categorical", "code", "--impute", "median")


def test_a_table_with_words_codes_and_missing_values_goes_from_csv_to_report(compare, ringed):
    rows = np.arange(len(ringed)) % 3 == 0
    ringed[rows].to_csv("new.csv", index=False)
    done = compare(ringed[~rows], *TABLE, "--test", "new.csv")
    assert done.code == 0, done.err
    told = storage.load("out").settings["table"]
    assert (
        "Left out: 'ring'. Categories, one-hot: 'habitat' (moor, wood), 'code' (7, 8, 9)." in told
    )
    assert "by the median of the training points 'x_2' (1)" in told
    assert f"birds.csv: {told}" in done.err
    assert "Left out: &#39;ring&#39;." in Path("out/report.html").read_text()
    options = Path("out/options.toml").read_text()
    assert 'drop = ["ring"]\ncategorical = ["code"]\nimpute = "median"\n' in options


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), r"3 problems.*'x_2' \(2\), 'habitat' \(1\).*--impute"),
        (("--impute", "knn"), "unknown imputation 'knn'; known are: median, mean, most-frequent"),
        (("--drop", "rings,cod"), "no column 'rings'.*did you mean 'ring'.*no column 'cod'"),
        (("--impute", "median", "--categorical", "rnig"), "no column 'rnig'.*did you mean 'ring'"),
        (("--drop", "Species name"), "'Species name' holds the labels"),
        ((*TABLE, "--test", "new.csv"), "2 problems.*'habitat' holds 'lake'.*'code' holds '1'"),
    ],
)
def test_columns_that_cannot_be_used_are_told_all_at_once(words, message, compare, ringed):
    ringed.assign(code=1, habitat="lake").to_csv("new.csv", index=False)
    ringed["weight"] = [*range(36), "fat"]
    ringed["born"] = "2020-01-01"
    done = compare(ringed if not words else ringed.drop(columns=["weight", "born"]), *words)
    assert done.code == 1
    assert re.search(message, done.err.replace("\n", " ")), done.err
    assert not Path("out").exists()


@pytest.mark.parametrize(
    "option", [("--drop", "x"), ("--categorical", "x"), ("--impute", "mean"), ("--missing", "NA")]
)
def test_options_of_columns_are_for_files(option, ntkbayes):
    error = ntkbayes("compare", "--data", "iris", *option).error
    assert f"{' '.join(option)} is for files, and iris knows its columns; leave it out" in error


def test_test_points_go_with_training_points_from_a_file(ntkbayes, birds):
    birds.to_csv("new.csv", index=False)
    done = ntkbayes("compare", "--data", "iris", "--test", "new.csv")
    assert done.code == 1
    assert "--data FILE" in done.err


def test_report_is_built_again_as_it_was(compare, ntkbayes, birds):
    compare(birds)
    path = Path("out/report.html")
    before = path.read_text(encoding="utf-8")
    path.unlink()
    done = ntkbayes("report", "out")
    assert (done.code, done.out) == (0, "report: out/report.html\n")
    assert path.read_text(encoding="utf-8") == before


def test_report_of_an_interrupted_run_names_what_is_missing(ntkbayes, birds, monkeypatch):
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Laplace, "fit", stop)
    birds.to_csv("birds.csv", index=False)
    data = ("--data", "birds.csv", "--target", "Species name", "--out", "out", "--ridge", "0.1")
    laws = ("--depth", "1", "--laws", "map,laplace", "--no-baselines")
    assert ntkbayes("compare", *data, *laws).code == 130
    done = ntkbayes("report", "out", "--json")
    assert done.code == 0
    assert "Not finished yet: Laplace. The command that was interrupted goes on" in done.err
    assert json.loads(done.out)["unfinished"] == ["Laplace"]
    assert "Not finished yet: Laplace" in Path("out/report.html").read_text(encoding="utf-8")


@pytest.mark.filterwarnings("always::ntkbayes.errors.DataWarning")
def test_constant_column_is_a_warning(compare, birds):
    birds["always"] = 7.0
    done = compare(birds)
    assert done.code == 0
    assert re.search(r"^warning: constant columns \['always'\].*drop them$", done.err, re.MULTILINE)
    assert done.err.count("warning") == 1


def test_finished_laws_are_kept(compare, birds, monkeypatch):
    compare(birds)
    monkeypatch.setattr(MAP, "solve", lambda *_: pytest.fail("MAP is fitted again"))
    done = compare(birds)
    assert done.code == 0
    assert "MAP, already fitted" in done.err


def test_ctrl_c_exits_130_and_says_how_to_go_on(compare, birds, monkeypatch):
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(MAP, "solve", stop)
    done = compare(birds)
    assert done.code == 130
    assert done.err.splitlines()[-1] == STOPPED


def test_ctrl_c_within_a_callback_of_the_garbage_collector_is_not_lost(capsys):
    presses = [KeyboardInterrupt]

    def callback(phase, info):
        if presses:
            raise presses.pop()

    def work():
        with interruption.interruptible():
            gc.callbacks.append(callback)  # no collection meets it before
            gc.collect()
            time.sleep(30)
            pytest.fail("the key press was lost")

    # Whoever runs the tests in the background may have told the shell to ignore the signal.
    heeded = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(SystemExit) as end:
            work()
    finally:
        signal.signal(signal.SIGINT, heeded)
        gc.callbacks.remove(callback)
    assert end.value.code == 130
    told = capsys.readouterr().err
    assert "Traceback" not in told
    assert told.splitlines() == [STOPPED]


@pytest.mark.parametrize("delay", [0, 10])  # while Python runs, and while compiled code does
def test_command_is_installed_and_ctrl_c_stops_it(tmp_path, delay):
    words = ["compare", "--data", "breast_cancer", "--ridge", "0.1"]
    words += ["--laws", "nuts", "--draws", "100000"]
    # Whoever runs the tests in the background may have told the shell to ignore the signal.
    heed = (
        "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); "
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    with subprocess.Popen(
        [sys.executable, "-c", heed, COMMAND, *words, "--out", "out"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stderr is not None
        try:
            assert process.stderr.readline().startswith("memory needed at the peak: NUTS, ")
            assert process.stderr.readline() == "NUTS …\n"
            time.sleep(delay)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert "Traceback" not in err
    assert err.splitlines()[-1] == STOPPED
    assert process.returncode == 130


# --- where it runs --------------------------------------------------------------------------------


def test_version_is_printed(ntkbayes):
    assert ntkbayes("--version").out == f"ntkbayes {version('ntkbayes')}\n"


@pytest.mark.parametrize(
    ("encoding", "ridge", "error"),
    [
        ("ascii", "1/2||theta - theta0||^2", "Fl\\xfcgel ... \\udce9"),
        ("cp1252", "½||theta - theta0||²", "Flügel … \\udce9"),
        ("utf-8", "½‖θ − θ0‖²", "Flügel … \\udce9"),
    ],
)
def test_every_terminal_gets_letters_that_it_has(encoding, ridge, error, monkeypatch):
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2))
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    monkeypatch.setattr(sys, "argv", ["ntkbayes", "compare", "--help"])
    with pytest.raises(SystemExit):
        main()
    terminal.say("Flügel … \udce9")
    print("Flügel … \udce9")
    texts = []
    for stream in (out, err):
        stream.flush()
        texts.append(" ".join(stream.buffer.getvalue().decode(encoding).split()))
    assert f"Weight of {ridge} against" in texts[0]
    assert texts[0].endswith(error)
    assert texts[1] == error


def test_numbers_are_never_cut_by_a_narrow_terminal(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "1")
    table = Table("law", "NLL (nats)")
    table.add_row("MAP", "0.12345")
    terminal.print_table(table)
    lines = capsys.readouterr().out.splitlines()
    assert any("MAP" in line and "0.12345" in line for line in lines)


def test_columns_that_do_not_wrap_are_never_cut(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "20")
    table = Table()
    for column in ("law", "NLL (nats)"):
        table.add_column(column, no_wrap=True)
    table.add_row("logistic regression", "0.832 ± 0.018")
    terminal.print_table(table)
    lines = capsys.readouterr().out.splitlines()
    assert any("logistic regression" in line and "0.832 ± 0.018" in line for line in lines)


def test_laws_may_be_named_as_tables_show_them():
    as_shown = tuple(method.name for method in METHODS.values())
    assert default_methods(as_shown) == default_methods(tuple(METHODS))


def test_numbers_do_not_depend_on_the_environment(ntkbayes, tmp_path):
    words = ("compare", "--data", "iris", *QUICK, "--out")
    assert ntkbayes(*words, "here").code == 0
    Path("matplotlibrc").write_text("text.usetex: True\n")
    elsewhere = os.fsdecode(b"l\xe0")  # Latin-1
    there = {
        "MPLBACKEND": "module://nowhere.backend",
        "MATPLOTLIBRC": str(tmp_path),
        "JAX_TRANSFER_GUARD": "disallow",
        "JAX_DEFAULT_PRNG_IMPL": "rbg",
        "JAX_RANDOM_SEED_OFFSET": "7",
        "JAX_THREEFRY_PARTITIONABLE": "0",
        "JAX_ENABLE_X64": "0",
        "PYTHONIOENCODING": "ascii",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
        "LC_ALL": "C",
        "COLUMNS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-OO", "-m", "ntkbayes", *words, elsewhere],
        env=os.environ | there,
        capture_output=True,
        encoding="ascii",
    )
    assert done.returncode == 0, done.stderr
    assert "JAX_DEFAULT_PRNG_IMPL, JAX_THREEFRY_PARTITIONABLE, JAX_RANDOM_SEED" in done.stderr
    here, there = (
        pd.read_csv(f"{folder}/comparison.csv").drop(columns=["seconds", "compile_seconds"])
        for folder in ("here", elsewhere)
    )
    pd.testing.assert_frame_equal(here, there, rtol=1e-9)


OF_THIS_JAXLIB = ["--xla_cpu_use_fusion_emitters=false"] * version("jaxlib").startswith("0.10.")


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("", ["--xla_backend_optimization_level=1", *OF_THIS_JAXLIB]),
        ("--xla_a=1", ["--xla_backend_optimization_level=1", *OF_THIS_JAXLIB, "--xla_a=1"]),
        (
            "--xla_backend_optimization_level=3",
            [*OF_THIS_JAXLIB, "--xla_backend_optimization_level=3"],
        ),
        (
            "--xla_cpu_use_fusion_emitters=true",
            ["--xla_backend_optimization_level=1", "--xla_cpu_use_fusion_emitters=true"],
        ),
    ],
)
def test_the_compiler_is_told_to_be_quick_unless_told_otherwise(given, kept, ntkbayes, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", given)
    ntkbayes("report", "nowhere")
    assert os.environ["XLA_FLAGS"].split() == kept


def test_a_device_that_is_not_there_is_named(ntkbayes, monkeypatch):
    def fail() -> None:
        raise AssertionError

    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    monkeypatch.setattr(jax, "devices", fail)
    error = ntkbayes("compare", "--data", "iris").error
    assert "JAX finds no device of JAX_PLATFORMS=cuda; leave that unset, or set it to cpu" in error


@pytest.mark.parametrize("module", ["typer", "jax"])
def test_ctrl_c_while_modules_are_imported_is_one_line(module):
    program = (
        "import os, signal, sys\n"
        "class Press:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {module!r}:\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "sys.meta_path.insert(0, Press())\n"
        "from ntkbayes.app.cli import run\n"
        "sys.argv = ['ntkbayes', 'compare', '--data', 'iris']\n"
        "run()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", f"{STOPPED}\n")


@pytest.mark.parametrize(
    ("ends_by", "code", "told"),
    [
        ("pass", 0, ""),
        ("raise SystemExit", 0, ""),
        ("raise SystemExit(3)", 3, ""),
        ("raise SystemExit('no such model')", 1, "no such model"),
        ("raise ValueError('a bug')", 1, "ValueError: a bug"),
    ],
)
def test_the_process_ends_by_its_own_code_after_all_that_is_registered_for_the_end(
    ends_by, code, told
):
    program = (
        "import atexit, sys\n"
        "from ntkbayes.app import cli\n"
        "def main():\n"
        "    atexit.register(print, 'last words', end='')\n"
        "    print('first')\n"
        f"    {ends_by}\n"
        "cli.main = main\n"
        "cli.run()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (code, "first\nlast words")
    assert done.stderr.strip().endswith(told) if told else not done.stderr


@pytest.mark.parametrize("is_full", [False, True])
def test_output_that_cannot_be_written_has_an_exit_code(is_full, monkeypatch, capsys):
    reader, writer = os.pipe()
    os.close(reader)
    if is_full:
        os.dup2(os.open("/dev/full", os.O_WRONLY), writer)
    monkeypatch.setattr(cli, "main", lambda: print("more than anybody reads"))
    monkeypatch.setattr(cli.interruption, "end_at_once", lambda: None)
    monkeypatch.setattr(cli.atexit, "register", lambda end: None)  # it would end the tests
    with open(writer, "w") as pipe, monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", pipe)
        with pytest.raises(SystemExit) as end:
            cli.run()
    assert end.value.code == 1
    error = "error: cannot write the output: No space left on device\n"
    assert capsys.readouterr().err == (error if is_full else "")


# --- what does not, and what then helps -----------------------------------------------------------


def changed(frame: pd.DataFrame, row: int, column: str, value: object) -> pd.DataFrame:
    frame = frame.astype({column: object})
    frame.loc[row, column] = value
    return frame


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda b: changed(b, 3, "x_2", None),
            r"'x_2' \(1\), the first in row 3; .*--impute median",
        ),
        (
            lambda b: changed(b, 3, "x_2", np.inf),
            r"'x_2' holds inf in row 3; numbers must be finite",
        ),
        (lambda b: changed(b, 3, "x_2", "tall"), r"'x_2' holds 'tall' in row 3; encode it"),
        (lambda b: b[:12], r"all labels are 'red kite'.*add points of another class"),
        (lambda b: b[::40], r"all labels are 'red kite'.*add points of another class"),
        (lambda b: b[:0], r"features are empty.*give at least one point"),
        (lambda b: b[["Species name"]], r"no features: its only column is .*'Species name'"),
        (lambda b: changed(b, 3, "Species name", None), r"1 target\(s\) are missing, in rows 3"),
    ],
)
def test_data_no_model_could_learn_from_are_named(change, message, compare, birds):
    assert re.search(message, compare(change(birds)).error)
    assert not Path("out").exists()


def test_missing_target_column_is_named_with_those_there_are(compare, birds):
    error = compare(birds, target="species").error
    assert "no column 'species'" in error
    assert "did you mean 'Species name'?" in error


def test_file_without_target_asks_for_it(ntkbayes, birds):
    birds.to_csv("birds.csv")
    error = ntkbayes("compare", "--data", "birds.csv", "--out", "out").error
    assert error == "error: name the column of the labels in birds.csv with --target"


def test_empty_file_is_named(ntkbayes):
    Path("empty.csv").write_text("")
    words = ("--data", "empty.csv", "--target", "y", "--out", "out")
    assert "empty.csv is empty; it needs a header and rows" in ntkbayes("compare", *words).error


def test_fewer_points_than_classes_are_refused(compare, birds):
    error = compare(birds, "--train-size", 2).error
    assert re.search("2 point|no class has two", error)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--data", "iriss"), r"unknown data set 'iriss'; known are: .*iris"),
        (("--data", "brids.csv", "--target", "y"), r"no file brids\.csv; check the path"),
        (("--data", "notes.txt", "--target", "y"), r"notes\.txt: known suffixes are \.csv"),
        (("--data", "iris", "--laws", "map,laplce"), r"unknown law 'laplce'; known are: map"),
        (("--data", "iris", "--laws", ","), r"no laws to compare; choose from map"),
        (("--data", "iris", "--activation", "rleu"), r"unknown activation 'rleu'; known are: relu"),
        (("--data", "iris", "--ridge", "-1"), r"ridge must be at least 0 and finite; got -1\.0"),
        (("--data", "iris", "--ridge", "nan"), r"ridge must be at least 0 and finite; got nan"),
        (("--data", "iris", "--ridge", "0", *SMALL), r"ridge"),
        (
            ("--data", "iris", "--ridge", "foo"),
            r"--ridge takes evidence, cv or a number of at least 0; got 'foo'",
        ),
        (("--data", "iris", "--ridge", ""), r"--ridge takes evidence, cv or a number .* got ''"),
        (("--data", "iris", "--ridge", "1,2"), r"--ridge takes evidence, cv or a number"),
        (("--data", "iris", "--ridge", "inf"), r"ridge must be at least 0 and finite; got inf"),
        (("--data", "iris", "--smoothing", "1.5"), r"must lie in \[0, 1\]; got 1\.5"),
        (("--data", "iris", "--temperature", "0"), r"temperature must be positive .* got 0\.0"),
        (("--data", "iris", "--temperature", "nan"), r"temperature must be positive .* got nan"),
        (("--data", "iris", "--test-share", "1"), r"test_share must lie in \(0, 1\); got 1\.0"),
        (("--data", "iris", "--train-size", "1000"), r"1 to 150, got 1000"),
        (("--data", "iris", "--seed", "-1"), r"seed must be at least 0 .* got -1"),
        (("--data", "iris", "--draws", "0"), r"draws must be at least 4; got 0"),
        (("--data", "iris", "--depth", "0"), r"depth must be at least 1; got 0"),
        (("--data", "iris", "--out", "file.txt/x"), r"cannot write .* file\.txt/x.*--out"),
        ((), r"give --data NAME, --model FILE, or both .*; got neither"),
        (("--data", "iris", "--model", "m.py"), r"no file m\.py; check the path"),
        (("--data", "iris", "--model", "m.py", "--depth", "1"), r"leave out --depth"),
        (
            ("--data", "iris", "--target", "x"),
            r"--target x is for files, and iris knows its labels",
        ),
        (("--data", "iris", "--draws", "9", *QUICK), r"--draws 9 is for .*of --laws map none does"),
        (("--data", "iris", "--data", "wine"), r"--data is given twice; give it once"),
        (("--data", "iris", "--baselines", "--no-baselines"), r"--baselines is given twice"),
        (("--data", ""), r"unknown data set ''"),
        (("--data", f"{'long' * 99}.csv", "--target", "y"), r"cannot read long.*; check the path"),
        (("--data", "folder.csv", "--target", "y"), r"folder\.csv is a folder; give a file"),
        (("--model", f"{'long' * 99}.py"), r"cannot read long.*; check the path"),
        (("--model", "m.py"), r"no file m\.py; check the path"),
        (("--model", "m.py", "--seed", "1", "--no-baselines"), r"leave out --seed, --baselines"),
    ],
)
def test_wrong_words_are_named_with_the_remedy(words, message, ntkbayes):
    Path("file.txt").write_text("in the way")
    Path("folder.csv").mkdir()
    if "leave out" in message:
        Path("m.py").write_text("raise AssertionError('not run')")
    out = () if "--out" in words else ("--out", "out")
    assert re.search(message, ntkbayes("compare", *words, *out).error)


MODEL = """
import ntkbayes as nb

study = nb.Study(
    data=nb.datasets.load("wine").take(range(0, 178, 4)),
    prior=nb.NTKPrior(nb.networks.mlp(depth=1), ridge=0.3),
    methods={"a point": nb.MAP()},
    baselines=False,
    test_share=0.5,
)
"""


def test_the_study_of_a_model_file_is_run_on_other_data(ntkbayes, birds):
    Path("m.py").write_text(MODEL)
    birds.to_csv("birds.csv", index=False)
    words = ("--model", "m.py", "--data", "birds.csv", "--target", "Species name")
    done = ntkbayes("compare", *words)
    assert done.code == 0, done.err
    comparison = storage.load(Path("runs/m-birds"))
    assert list(comparison.predictions) == ["a point"]
    assert comparison.settings["data"] == "birds"
    assert set(comparison.predictions["a point"].class_names) == {"red kite", "buzzard", "o'wl"}
    assert "--depth" in ntkbayes("compare", *words, "--depth", "1").error


WITHOUT_JAX = """
import json, sys
from ntkbayes.app.cli import main

for words, heavy in json.load(sys.stdin):
    sys.argv = ["ntkbayes", *words]
    try:
        main()
    except SystemExit as end:
        print("code", end.code)
    assert not {*heavy} & {*sys.modules}, words
"""


def test_what_needs_no_jax_is_answered_without_it(tmp_path, birds):
    birds.to_csv(tmp_path / "birds.csv", index=False)
    (tmp_path / "latin.csv").write_bytes(b"h\xf6he,y\n1,2\n")
    file = ("--data", "brids.csv", "--target", "y")
    cases = [
        # words, code, and what is said
        (["--help"], 0, r"Example: ntkbayes compare"),
        (["--version"], 0, r"ntkbayes \d"),
        (["comprae"], 2, r"No such command 'comprae'. Did you mean 'compare'"),
        *[([command, "--help"], 0, r"Example") for command in ("compare", "sweep", "lazy")],
        (["compare", "--daat", "iris"], 2, r"No such option: --daat"),
        (["compare", "--depth", "two"], 2, r"Invalid value for '--depth'"),
        (["compare"], 1, r"give --data NAME, --model FILE, or both"),
        (["compare", "--model", "finches.py"], 1, r"no file finches\.py"),
        (["compare", *file], 1, r"no file brids\.csv"),
        (["compare", "--data", "brids.csv"], 1, r"column of the labels in brids\.csv"),
        (["compare", "--data", "birds.txt", "--target", "y"], 1, r"known suffixes are \.csv"),
        (["compare", "--data", "birds.csv", "--target", "y"], 1, r"no column 'y'"),
        (["compare", "--data", "latin.csv", "--target", "y"], 1, r"line 1 is not UTF-8"),
        (["sweep", "--data", "iris", *file], 1, r"no file brids\.csv"),
        (["lazy", *file], 1, r"no file brids\.csv"),
    ]
    # Once imported, a module stays: what needs the fewest comes first.
    heavy = ["jax", "equinox", "matplotlib", "sklearn", "pandas", "arviz", "numpyro", "distributed"]
    given = json.dumps([(words, heavy + ["numpy"] * (code != 1)) for words, code, _ in cases])
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_JAX],
        input=given,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert re.findall(r"^code (\d)$", done.stdout, re.MULTILINE) == [str(c) for _, c, _ in cases]
    for _, _, said in cases:
        assert re.search(said, done.stdout + " ".join(done.stderr.split()))


def test_options_that_would_be_ignored_are_errors(ntkbayes):
    sweep = ("sweep", "--data", "iris", "--data", "wine")
    error = ntkbayes(*sweep, "--target", "x").error
    assert "--target x is for files, and iris, wine knows its labels; leave it out" in error
    error = ntkbayes(*sweep, "--scheduler", "tcp://nowhere:1", "--workers", "2").error
    assert "--workers 2 are processes of this machine, but with --scheduler others" in error
    assert "--draws 8" in ntkbayes(*sweep, "--laws", "map,laplace", "--draws", "8").error
    assert "--target x" in ntkbayes("lazy", "--data", "iris", "--target", "x").error
    assert not Path("runs").exists()


def test_folder_is_free_after_a_mistake(ntkbayes):
    words = ("compare", "--data", "iris", "--train-size", "40", *SMALL, "--out", "out")
    assert "ridge" in ntkbayes(*words, "--ridge", "0").error
    assert ntkbayes(*words, "--ridge", "0.1").code == 0


def test_broken_law_in_the_folder_is_named(compare, birds):
    compare(birds)
    path = storage.LawFolder("out").path_of("MAP")
    path.write_bytes(b"broken")
    assert re.search(r"out/laws/map-.*\.nc.*delete it and run again", compare(birds).error)
    path.unlink()
    assert compare(birds).code == 0


def test_folder_of_another_study_is_named(compare, birds):
    compare(birds)
    error = compare(birds, "--ridge", 0.2).error
    assert "out holds a study with other settings (differing in: prior)" in error
    assert "choose another output folder" in error


def without_seconds(table: object) -> str:
    return pd.read_csv(table).drop(columns=["seconds", "compile_seconds"]).to_csv()


def first_line_of_table(done: Outcome) -> str:
    return done.out.splitlines()[0]


def test_the_evidence_chooses_the_ridge_unless_it_is_given(compare, birds):
    chosen = compare(birds, "--ridge", "evidence")
    assert chosen.code == 0, chosen.err
    told = storage.load("out").settings["ridge"]
    ridge = f"{told['value']:g}"
    line = f"Ridge {ridge}, which maximises the evidence of the training points."
    assert first_line_of_table(chosen) == line
    page = Path("out/report.html").read_text(encoding="utf-8")
    assert page.index(f'<p class="lead">{line}') < page.index("<main>")
    table = Path("out/comparison.csv").read_bytes()
    shutil.rmtree("out")
    assert first_line_of_table(compare(birds, "--ridge", ridge)) == f"Ridge {ridge}, as given."
    assert without_seconds("out/comparison.csv") == without_seconds(io.BytesIO(table))


def test_the_default_ridge_is_the_evidences(ntkbayes, monkeypatch):
    monkeypatch.setattr(
        RidgeByEvidence, "choose", lambda *_, **__: RidgeChoice(0.25, "by the evidence, it is said")
    )
    done = ntkbayes("compare", "--data", "iris", *SMALL, "--out", "out")
    assert first_line_of_table(done) == "Ridge 0.25, by the evidence, it is said."


def test_report_of_no_comparison_says_how_to_make_one(ntkbayes):
    Path("empty").mkdir()
    for folder in ("empty", "missing"):
        error = ntkbayes("report", folder).error
        assert f"{folder} holds no finished comparison" in error
        assert "ntkbayes compare" in error
    assert list(Path("empty").iterdir()) == []


def test_named_data_are_those_of_the_help(ntkbayes):
    text = " ".join(ntkbayes("compare", "--help").out.split())
    assert ", ".join(datasets.NAMES) in text


def test_the_help_cuts_no_command_short(ntkbayes, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    lines = ntkbayes("--help").out.split("Commands:")[1].split("Example:")[0].split("\n")
    told = [line for line in lines if line.strip()]
    assert len(told) == 5
    assert all(line.endswith(".") and not line.endswith("...") for line in told)


def test_the_help_names_every_law(ntkbayes):
    text = re.sub(
        r"\s+", "", ntkbayes("compare", "--help").out
    )  # names are broken at their hyphens
    listed = re.search(r"Comma-separated,of:(.*?)\.", text).group(1)
    assert listed.replace("(twoclasses)", "").split(",") == list(METHODS)
