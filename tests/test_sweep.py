"""Sweeps give what their studies give alone, lose nothing with a worker, and do nothing twice."""

import dataclasses
import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import cloudpickle
import jax
import numpy as np
import pandas as pd
import pytest
from distributed import Client, Future, KilledWorker, LocalCluster

import ntkbayes as nb
from ntkbayes import datasets, files
from ntkbayes.app import cli, workers
from ntkbayes.app.methods import default_methods
from ntkbayes.app.study import Study
from ntkbayes.app.sweep import Sweep, grid, write_report
from ntkbayes.app.workers import ATTEMPTS, connect, study_folder
from ntkbayes.description import digest
from ntkbayes.errors import (
    ConfigurationError,
    DataWarning,
    FolderInUseError,
    MissingDependencyError,
    PrecisionError,
    StorageError,
    UnknownNameError,
)
from ntkbayes.scores.calibration import standard_scores

# A mean that float32 does not hold: a worker that unpickled it before it switched to float64 would
# find another law.
PRIOR = nb.NTKPrior(nb.networks.mlp(depth=1), ridge=0.1, mean=1 / 3)


def points(name: str = "iris", size: int = 12) -> nb.Dataset:
    return datasets.load(name).subset(jax.random.key(0), size)


STUDY = Study(points(), PRIOR, methods=default_methods(("map",)), baselines=False)
RIDGES = grid(STUDY, ridges=(0.1, 1.0))
FIRST, SECOND = RIDGES


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """One worker in this process: quick, and it shares what is compiled."""
    with LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0"
    ) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def client(cluster) -> Iterator[Client]:
    """Not Dask's default: a sweep uses the client it is given, or one of its own, and no other."""
    with Client(cluster, set_as_default=False) as client:
        yield client


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> pd.DataFrame:
    """Tables of the studies RIDGES, run one by one."""
    tables = []
    for name, study in RIDGES.items():
        study.run(folder := tmp_path_factory.mktemp("alone"))
        tables.append(pd.read_csv(folder / "comparison.csv"))
        tables[-1].insert(0, "study", name)
    return pd.concat(tables, ignore_index=True)


@pytest.fixture(scope="module")
def finished(client, tmp_path_factory) -> Path:
    """The folder of a sweep that ran through."""
    folder = tmp_path_factory.mktemp("finished")
    Sweep(RIDGES).run(folder, client=client)
    return folder


class Unused:
    """A client that must not be asked for anything."""


def attempts(folder: Path) -> dict[str, int]:
    """How often each study was begun, by the name of its folder."""
    logs = (folder / "studies").glob("*/attempts.log")
    return {log.parent.name: len(log.read_text().splitlines()) for log in logs}


def begun_once(folder: str | Path) -> bool:
    return len(Path(folder, "attempts.log").read_text().splitlines()) == 1


def assert_same_results(table: pd.DataFrame, alone: pd.DataFrame) -> None:
    columns = list(alone.columns.drop(["seconds", "compile_seconds"]))
    pd.testing.assert_frame_equal(table[columns], alone[columns], rtol=1e-9)


# --- what a sweep is ------------------------------------------------------------------------------


def test_grid_is_the_product_in_its_order():
    made = grid(STUDY, data=("wine", points()), ridges=(1, 0.25), seeds=(0, 7))
    assert list(made) == [
        f"{data}, ridge {ridge}, seed {seed}"
        for data in ("wine", "iris")
        for ridge in (1.0, 0.25)
        for seed in (0, 7)
    ]
    one = made["wine, ridge 0.25, seed 7"]
    assert (one.data, float(one.prior.ridge), one.seed) == ("wine", 0.25, 7)
    assert float(one.prior.mean) == 1 / 3
    assert one.methods == STUDY.methods


def test_grid_without_values_is_the_study_itself():
    (name,) = made = grid(STUDY)
    assert name == "iris, ridge 0.1, seed 0"
    assert made[name] == STUDY


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"data": (points(), "iris")}, "data set 'iris' is given 2 times"),
        ({"ridges": (1, 0.5, 1.0)}, r"ridge 1\.0 is given 2 times; give each once"),
        (
            {"ridges": (nb.RidgeByEvidence(), nb.RidgeByEvidence(within=(0.1, 1)))},
            "ridge 'evidence' is given 2 times",
        ),
        ({"seeds": (3, 3, 3)}, "seed 3 is given 3 times"),
        ({"ridges": (-1.0,)}, r"ridge must be at least 0 and finite; got -1\.0"),
        ({"seeds": (-1,)}, "seed must be at least 0 .* got -1"),
    ],
)
def test_grid_of_bad_values_is_refused(axes, message):
    with pytest.raises(ConfigurationError, match=message):
        grid(STUDY, **axes)


def test_sweep_of_nothing_is_refused():
    with pytest.raises(ConfigurationError, match="at least one study"):
        Sweep({})


def test_studies_whose_names_are_alike_have_folders_of_their_own(tmp_path):
    names = ("A b", "a-B", "数据", "資料")
    folders = {study_folder(tmp_path, name).name.casefold() for name in names}
    assert len(folders) == len(names)


# --- results --------------------------------------------------------------------------------------


def test_results_are_those_of_the_studies_alone(finished, alone):
    table = pd.read_csv(finished / "sweep.csv")
    assert_same_results(table, alone)
    assert list(table["ridge"]) == [0.1, 1.0]
    assert list(table.columns[:6]) == ["study", "data", "ridge", "ridge_rule", "seed", "law"]
    assert set(table["ridge_rule"]) == {"given"}
    assert set(table["data"]) == {"iris"}
    assert set(table["law"]) == {"MAP"}
    for score in standard_scores():
        assert (table[f"{score}_lower"] <= table[f"{score}_upper"]).all()
    assert list(table["attempts"]) == [1, 1]
    assert table["error"].isna().all()


def test_second_run_asks_nothing_of_the_cluster_and_finds_the_same(finished):
    before = (finished / "sweep.csv").read_bytes()
    found = Sweep(RIDGES).run(finished, client=Unused())
    assert found.failures == ()
    assert (finished / "sweep.csv").read_bytes() == before


def test_sweep_may_grow_and_runs_what_is_new_alone(client, tmp_path):
    Sweep({FIRST: RIDGES[FIRST]}).run(tmp_path, client=client)
    found = Sweep(RIDGES).run(tmp_path, client=client)
    assert list(found.table["study"]) == [FIRST, SECOND]
    assert set(attempts(tmp_path).values()) == {1}


def test_sweep_takes_more_laws_and_goes_on_from_those_it_has(client, tmp_path, alone, monkeypatch):
    one = {FIRST: RIDGES[FIRST]}
    Sweep(one).run(tmp_path, client=client)

    def fail(self: nb.MAP, *_: object, **__: object) -> None:
        raise AssertionError("MAP is fitted again")

    monkeypatch.setattr(nb.MAP, "fit", fail)
    more = dataclasses.replace(STUDY, methods=default_methods(("map", "laplace")))
    found = Sweep({FIRST: more}).run(tmp_path, client=client)
    assert found.failures == ()
    assert list(found.table["law"]) == ["MAP", "Laplace"]
    assert_same_results(found.table[:1], alone[:1])
    assert list(Sweep(one).run(tmp_path, client=client).table["law"]) == ["MAP"]


def test_studies_need_not_be_a_product(client, tmp_path):
    both = {"plain": STUDY, "smoothed": dataclasses.replace(STUDY, smoothing=0.2)}
    table = Sweep(both).run(tmp_path, client=client).table.set_index("study")
    assert set(table["ridge"]) == {0.1}
    assert table.loc["plain", "nll"] != table.loc["smoothed", "nll"]


def test_workers_draw_as_the_process_that_asks(client, tmp_path, alone):
    with jax.default_prng_impl("rbg"):
        STUDY.run(tmp_path / "alone")
        found = Sweep({"rbg": STUDY}).run(tmp_path / "sweep", client=client).table
    here = pd.read_csv(tmp_path / "alone" / "comparison.csv")
    here.insert(0, "study", "rbg")
    assert_same_results(found, here)
    assert here["nll"][0] != alone["nll"][0]


def test_a_study_chooses_its_ridge_by_its_own_rule_and_the_table_tells_both(client, tmp_path):
    studies = grid(STUDY, ridges=(nb.RidgeByEvidence(), 0.1))
    assert list(studies) == ["iris, ridge evidence, seed 0", FIRST]
    table = Sweep(studies).run(tmp_path, client=client).table
    assert list(table["ridge_rule"]) == ["evidence", "given"]
    folder = study_folder(tmp_path, "iris, ridge evidence, seed 0")
    chosen = json.loads((folder / "ridge.json").read_text(encoding="utf-8"))
    assert list(table["ridge"]) == [chosen["value"], 0.1]
    assert table["nll"][0] != table["nll"][1]


@pytest.mark.filterwarnings("always::ntkbayes.errors.DataWarning")
def test_warnings_name_their_study(client, tmp_path):
    data = points()
    features = np.column_stack([data.features, np.full(data.num_points, 7.0)])
    study = dataclasses.replace(STUDY, data=nb.Dataset(features, data.targets, name="flat"))
    with pytest.warns(DataWarning, match="^flat, ridge 0.1, seed 0: constant columns"):
        Sweep(grid(study)).run(tmp_path, client=client)


# --- what goes wrong ------------------------------------------------------------------------------


def test_error_of_ours_is_reported_once_and_the_others_stand(client, tmp_path, alone):
    found = Sweep(grid(STUDY, ridges=(0.0, 0.1))).run(tmp_path, client=client)
    (failure,) = found.failures
    assert failure.study == "iris, ridge 0.0, seed 0"
    assert failure.attempts == 1
    assert failure.error.startswith("RidgeError: ")
    assert str(failure).startswith("iris, ridge 0.0, seed 0 (begun once): RidgeError: ")

    bad, good = (found.table[found.table["ridge"] == ridge] for ridge in (0.0, 0.1))
    assert_same_results(good.reset_index(drop=True), alone[:1])
    assert list(good["error"]) == [""]
    assert list(bad["error"]) == [failure.error]
    assert list(bad["law"]) == ["MAP"]
    assert bad[list(standard_scores())].isna().all(axis=None)
    assert len(pd.read_csv(tmp_path / "sweep.csv")) == 2


def test_rows_of_a_failed_study_are_those_of_its_laws(client, tmp_path):
    methods = default_methods(("map", "laplace"))
    prior = nb.NTKPrior(nb.networks.mlp(depth=1), ridge=0.0)
    study = dataclasses.replace(STUDY, methods=methods, baselines=True, prior=prior)
    table = Sweep({"mine": study}).run(tmp_path, client=client).table
    assert list(table["law"][:2]) == ["MAP", "Laplace"]
    assert "logistic regression" in set(table["law"])
    assert table["error"].str.startswith("RidgeError").all()


@dataclasses.dataclass(frozen=True)
class Stumbling(Study):
    """Raises an error that is not ours, once or always."""

    always: bool = False

    def run(self, folder, **options):
        if self.always or begun_once(folder):
            raise RuntimeError("the disk is on fire")
        return super().run(folder, **options)


def stumbling(always: bool) -> Study:
    kept = {f.name: getattr(STUDY, f.name) for f in dataclasses.fields(STUDY)}
    return Stumbling(**kept, always=always)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_other_errors_are_retried_and_then_reported(client, tmp_path, alone):
    studies = {FIRST: stumbling(False), SECOND: stumbling(True)}
    found = Sweep(studies).run(tmp_path, client=client)
    assert_same_results(found.table[:1], alone[:1])
    assert list(found.table["attempts"]) == [2, ATTEMPTS]
    assert found.failures == ((SECOND, "RuntimeError: the disk is on fire", ATTEMPTS),)


def test_failed_study_is_tried_anew_by_the_next_run(client, tmp_path, alone):
    broken = study_folder(tmp_path, FIRST)
    broken.mkdir(parents=True)
    (broken / "laws").write_text("in the way")
    sweep = Sweep({FIRST: RIDGES[FIRST]})
    (failure,) = sweep.run(tmp_path, client=client).failures
    assert failure.error.startswith("StorageError: cannot write to")
    (broken / "laws").unlink()
    found = sweep.run(tmp_path, client=client)
    assert found.failures == ()
    assert_same_results(found.table, alone[:1])


def test_ctrl_c_leaves_what_is_finished(client, tmp_path, alone, monkeypatch):
    def interrupted(name: str, future: Future) -> str | None:
        error = error_of(name, future)
        if name == FIRST:  # Ctrl-C, as soon as the first study is known to have ended
            raise KeyboardInterrupt
        return error

    error_of = workers._error_of
    monkeypatch.setattr(workers, "_error_of", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Sweep(RIDGES).run(tmp_path, client=client)
    begun = attempts(tmp_path)
    monkeypatch.undo()
    found = Sweep(RIDGES).run(tmp_path, client=client)
    assert found.failures == ()
    assert_same_results(found.table, alone)
    first = study_folder(tmp_path, FIRST).name
    assert begun[first] == attempts(tmp_path)[first] == 1


# --- workers that die -----------------------------------------------------------------------------


def test_killed_worker_costs_no_result_and_only_its_study_runs_again(tmp_path, alone):
    # Defined here it is pickled with its code: workers need not import this file, which takes seconds.
    @dataclasses.dataclass(frozen=True)
    class Killed(Study):
        """Takes its worker's process down in the middle: after the law, at the first attempt."""

        def run(self, folder, **options):
            def announce(what: str) -> nullcontext:
                log = Path(folder, "attempts.log").read_text()
                if what == "report" and len(log.splitlines()) == 1:
                    os.kill(os.getpid(), signal.SIGKILL)
                return nullcontext()

            return super().run(folder, announce=announce, **options)

    kept = {f.name: getattr(RIDGES[SECOND], f.name) for f in dataclasses.fields(STUDY)}
    studies = {FIRST: RIDGES[FIRST], SECOND: Killed(**kept)}
    found = Sweep(studies).run(tmp_path, num_workers=1)
    assert found.failures == ()
    assert_same_results(found.table, alone)
    assert list(found.table["attempts"]) == [1, 2]  # though the dead worker had done the first
    logs = [study_folder(tmp_path, name) / "attempts.log" for name in RIDGES]
    (done,), (died, again) = (
        [line.split()[-1] for line in log.read_text().splitlines()] for log in logs
    )
    assert done == died
    assert len({died, again, str(os.getpid())}) == 3


class Deadly:
    """A client whose cluster blames the first tasks it is given for the death of a worker."""

    def __init__(self, client: Client, deaths: int):
        self.client, self.deaths, self.loop = client, deaths, client.loop

    def submit(self, task: Callable, *arguments: object, **options: object) -> Future:
        self.deaths -= 1
        if self.deaths < 0:
            return self.client.submit(task, *arguments, **options)
        return self.client.submit(_blame, pure=False)

    def cancel(self, futures: list[Future]) -> None:
        self.client.cancel(futures)


def _blame() -> None:
    raise KilledWorker("task", SimpleNamespace(address="tcp://gone"), 3)


def test_study_blamed_for_the_death_of_a_worker_it_only_waited_for_still_runs(
    client, tmp_path, alone
):
    sweep = Sweep({FIRST: RIDGES[FIRST]})
    found = sweep.run(tmp_path, client=Deadly(client, ATTEMPTS - 1))
    assert found.failures == ()
    assert_same_results(found.table, alone[:1])
    assert list(found.table["attempts"]) == [1]


def test_study_whose_workers_die_again_and_again_is_reported(client, tmp_path):
    found = Sweep({FIRST: RIDGES[FIRST]}).run(tmp_path, client=Deadly(client, ATTEMPTS))
    (failure,) = found.failures
    assert "its workers died, again and again" in failure.error
    assert list(found.table["error"]) == [failure.error]


class Elsewhere(Deadly):
    """A client whose workers have another file system."""

    def submit(self, task: Callable, work: bytes, folder: str, *more: object, **options) -> Future:
        return self.client.submit(task, work, f"{folder}-elsewhere", *more, **options)


def test_workers_that_do_not_share_the_folder_are_named(client, tmp_path):
    found = Sweep({FIRST: RIDGES[FIRST]}).run(tmp_path, client=Elsewhere(client, 0))
    assert "workers must share the file system of the sweep's folder" in found.failures[0].error


# --- what is refused at once ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("studies", "message"),
    [
        ({FIRST: STUDY}, r"whose study 'iris, ridge 1\.0, seed 0' is not in this one"),
        (grid(STUDY, ridges=(0.1, 1.0), seeds=(1,)), r"'iris, ridge 0\.1, seed 0' and 1 more"),
        (
            grid(dataclasses.replace(STUDY, smoothing=0.1), ridges=(0.1, 1.0)),
            r"has other settings here; choose another output folder",
        ),
        (grid(STUDY, data=(points(size=13),), ridges=(0.1, 1.0)), "holds another sweep"),
    ],
)
def test_folder_of_another_sweep_is_refused(studies, message, finished):
    before = {path: path.read_bytes() for path in finished.glob("*.*")}
    with pytest.raises(StorageError, match=message):
        Sweep(studies).run(finished, client=Unused())
    assert {path: path.read_bytes() for path in finished.glob("*.*")} == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"holds studies but no sweep\.json; choose another output folder"),
        (b"\xff{", r"sweep\.json cannot be read"),
        (b"[]", r"sweep\.json cannot be read .*it holds no object"),
    ],
)
def test_folder_of_an_unknown_sweep_is_refused(content, message, tmp_path):
    laws = study_folder(tmp_path, FIRST) / "laws"
    laws.mkdir(parents=True)
    (laws / "map.nc").write_bytes(b"")
    if content is not None:
        (tmp_path / "sweep.json").write_bytes(content)
    with pytest.raises(StorageError, match=message):
        Sweep(RIDGES).run(tmp_path, client=Unused())


def test_a_log_that_is_a_link_is_not_written_through(tmp_path):
    place, precious = study_folder(tmp_path, FIRST), tmp_path / "precious"
    precious.write_text("mine")
    place.mkdir(parents=True)
    (place / "attempts.log").symlink_to(precious)
    work = cloudpickle.dumps((RIDGES[FIRST], "", {}))
    assert "could not write" in str(workers._attempt(work, str(place), None, "").error)
    assert precious.read_text() == "mine"


def test_two_sweeps_do_not_share_a_folder(tmp_path):
    with files.held(tmp_path), pytest.raises(FolderInUseError, match="in use by process"):
        Sweep(RIDGES).run(tmp_path, client=Unused())


@pytest.mark.parametrize(
    ("broken", "content", "message"),
    [
        ("result.json", None, "has not ended; the same command goes on"),
        ("sweep.csv", None, "has not ended; the same command goes on"),
        ("sweep.csv", "study,law\n", "is broken .*; run the sweep again"),
        ("result.json", "{}", "is broken .*; run the sweep again"),
        ("result.json", "{", "delete it and run again"),
    ],
)
def test_a_report_is_not_built_from_a_broken_sweep(broken, content, message, finished, tmp_path):
    copy = Path(shutil.copytree(finished, tmp_path / "copy"))
    (copy / broken).unlink()
    if content is not None:
        (copy / broken).write_text(content)
    with pytest.raises(StorageError, match=message):
        write_report(copy)


def test_broken_table_of_a_study_is_named(tmp_path):
    place = study_folder(tmp_path, FIRST)
    place.mkdir(parents=True)
    (place / "report.html").write_text("")
    own = {name: digest(law) for name, law in RIDGES[FIRST].laws().items()}
    (place / "comparison.json").write_text(json.dumps({"configurations": own}))
    for content in ("law,nll\nMAP,good", "law,nll\nMAP", "nll\n0.1", "law,nll\nMAP,1,2"):
        (place / "comparison.csv").write_text(content)
        with pytest.raises(StorageError, match=r"comparison\.csv .* delete it and run again"):
            Sweep({FIRST: RIDGES[FIRST]}).run(tmp_path, client=Unused())


def test_folder_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match=r"cannot write to the output folder .*file/out"):
        Sweep(RIDGES).run(tmp_path / "file" / "out", client=Unused())


def test_unknown_data_set_is_named_before_anything_runs(tmp_path):
    with pytest.raises(UnknownNameError, match="unknown data set 'iriss'; known are"):
        Sweep(grid(STUDY, data=("iriss",))).run(tmp_path / "out", client=Unused())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("number", "client"), [(0, None), (2, Unused())])
def test_number_of_workers_is_for_a_cluster_of_our_own(number, client, tmp_path):
    with pytest.raises(ConfigurationError, match=f"at least 1; got {number}"):
        Sweep(RIDGES).run(tmp_path, num_workers=number, client=client)


def test_float32_is_refused(tmp_path):
    with jax.enable_x64(False), pytest.raises(PrecisionError, match="float64"):
        Sweep(RIDGES).run(tmp_path, client=Unused())


def test_missing_dask_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'ntkbayes\[sweep\]'"):
        Sweep(RIDGES).run(tmp_path)


def test_workers_that_do_not_start_say_what_a_script_needs(tmp_path, monkeypatch):
    def fail(**_: object) -> None:
        raise RuntimeError("Nanny failed to start.")

    monkeypatch.setattr("distributed.LocalCluster", fail)
    with pytest.raises(ConfigurationError, match=r"Nanny failed .* below `if __name__ == '__main"):
        Sweep(RIDGES).run(tmp_path)


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nonsense://x"])
def test_scheduler_that_does_not_answer_is_named(address):
    with pytest.raises(ConfigurationError, match=f"no Dask scheduler answers at '{address}'"):
        connect(address, timeout=0.2)


# --- the command ----------------------------------------------------------------------------------


@pytest.fixture
def ntkbayes(monkeypatch, capsys, tmp_path, cluster):
    """Runs `ntkbayes sweep` in a folder with own data, at the cluster: code, output, messages."""
    monkeypatch.chdir(tmp_path)
    data = points()
    frame = pd.DataFrame(data.features, columns=data.feature_names)
    frame.assign(kind=[f"kind {label}" for label in data.labels]).to_csv("my.csv", index=False)

    def run(*words: object, data: str = "my.csv") -> tuple[int, str, str]:
        usual = ("--data", data, "--target", "kind", "--depth", "1", "--no-baselines")
        quick = {"--laws": "map", "--scheduler": cluster.scheduler_address}
        given = {"--scheduler" if word == "--workers" else word for word in words}
        own = [part for pair in quick.items() if pair[0] not in given for part in pair]
        monkeypatch.setattr(sys, "argv", ["ntkbayes", "sweep", *usual, *own, *map(str, words)])
        capsys.readouterr()
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_command_writes_a_table_of_all_studies_and_its_report_again(ntkbayes, monkeypatch, capsys):
    code, out, err = ntkbayes("--ridge", 0.1, "--ridge", 1, "--seed", 0)
    assert code == 0, err
    assert "table: runs/sweep/sweep.csv" in out
    assert "2/2" in err
    table = pd.read_csv("runs/sweep/sweep.csv")
    assert list(table["study"]) == ["my, ridge 0.1, seed 0", "my, ridge 1.0, seed 0"]
    assert f"{table['nll'][0]:.3f}" in out
    (path,) = Path("runs/sweep/studies").glob("my-ridge-0-1-seed-0-*/report.html")
    report = path.read_text(encoding="utf-8")
    assert "ntkbayes sweep --data my.csv" in report

    given = ("--config", "runs/sweep/options.toml", "--json", "--quiet")
    code, out, err = ntkbayes(*given)  # all is finished already
    found = json.loads(out)
    assert (code, err) == (0, "")
    assert [row["study"] for row in found["table"]] == list(table["study"])
    paths = {"table": "runs/sweep/sweep.csv", "report": "runs/sweep/report.html"}
    assert (found["failures"], found["paths"]) == ([], paths)
    whole = Path(paths["report"]).read_text(encoding="utf-8")
    assert "means over 1 seed" in whole

    Path(paths["report"]).unlink()
    monkeypatch.setattr(sys, "argv", ["ntkbayes", "report", "runs/sweep", "--quiet"])
    with pytest.raises(SystemExit, match=r"^0$"):
        cli.main()
    assert capsys.readouterr().out.endswith("report: runs/sweep/report.html\n")
    assert Path(paths["report"]).read_text(encoding="utf-8") == whole


def test_command_takes_rules_beside_numbers(ntkbayes):
    code, out, err = ntkbayes("--ridge", "evidence", "--ridge", 0.1)
    assert code == 0, err
    table = pd.read_csv("runs/sweep/sweep.csv")
    assert list(table["study"]) == ["my, ridge evidence, seed 0", "my, ridge 0.1, seed 0"]
    assert re.search(r"my\s*│\s*evidence\s*│\s*MAP", out)
    assert re.search(r"my\s*│\s*0\.1\s*│\s*MAP", out)


def test_command_takes_targets_of_numbers(ntkbayes):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"x": rng.normal(size=24)})
    frame.assign(kind=rng.poisson(np.exp(1 + frame["x"]))).to_csv("counts.csv", index=False)
    code, out, err = ntkbayes("--likelihood", "poisson", data="counts.csv")
    assert code == 0, err
    assert "CRPS" in out
    table = pd.read_csv("runs/sweep/sweep.csv")
    assert table["crps"].notna().all()
    assert "accuracy" not in table


def test_command_refuses_words_that_are_no_rule(ntkbayes):
    code, _, err = ntkbayes("--ridge", "evidense")
    assert code == 1
    assert "--ridge takes evidence, cv or a number of at least 0; got 'evidense'" in err


def test_command_reports_failures_and_exits_1(ntkbayes):
    code, out, err = ntkbayes("--ridge", 0)
    assert code == 1
    assert "Traceback" not in err
    assert "failed: my, ridge 0.0, seed 0 (begun once): RidgeError" in err
    assert "1 of 1 studies failed; the same command tries them again" in err
    assert "table: runs/sweep/sweep.csv" in out


def test_ctrl_c_stops_the_command(ntkbayes, monkeypatch):
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Sweep, "run", stop)
    code, _, err = ntkbayes()
    assert code == 130
    assert "stopped; the same command resumes from what is already finished" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--data", "iriss"), "unknown data set 'iriss'"),
        (("--ridge", "0.1", "--ridge", "0.1"), r"ridge 0\.1 is given 2 times"),
        (("--seed", "-1"), "seed must be at least 0"),
        (("--laws", "map,laplce"), "unknown law 'laplce'"),
        (("--workers", "0"), "at least 1; got 0"),
        (("--scheduler", "nonsense://x"), "no Dask scheduler answers at 'nonsense://x'"),
        (("--out", "my.csv/out"), "cannot write .* --out"),
    ],
)
def test_wrong_words_are_named_with_the_remedy(words, message, ntkbayes):
    code, _, err = ntkbayes(*words)
    assert code == 1
    assert "Traceback" not in err
    last = err.splitlines()[-1]
    assert last.startswith("error: ")
    assert re.search(message, last)


def test_help_shows_an_example(ntkbayes, capsys):
    code, out, _ = ntkbayes("--help")
    assert code == 0
    assert "Example: ntkbayes sweep --data wine --data iris" in " ".join(out.split())


def test_first_script_of_the_page_runs_its_studies(monkeypatch):
    page = Path(__file__).parents[1] / "docs" / "howto" / "cluster.md"
    local, *others = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    for block in others:
        compile(block, str(page), "exec")
    ran = []

    def run(sweep: Sweep, folder: str, **_: object) -> SimpleNamespace:
        ran.append((folder, list(sweep.studies)))
        table = pd.DataFrame({"data": ["wine"], "ridge": [0.1], "law": ["MAP"], "nll": [0.5]})
        return SimpleNamespace(table=table, failures=())

    monkeypatch.setattr(Sweep, "run", run)
    exec(compile(local, str(page), "exec"), {"__name__": "__main__"})
    ((folder, names),) = ran
    assert folder == "runs/sweep"
    assert len(names) == 2 * 3 * 3
