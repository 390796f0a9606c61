"""A study is fitted law by law, goes on where it stopped, and is the same each time."""

import dataclasses
import json
import shutil
import textwrap
from functools import partial
from html import escape
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest

import ntkbayes as nb
from ntkbayes import datasets, files, storage
from ntkbayes.app import report
from ntkbayes.app.baselines import BASELINES
from ntkbayes.app.methods import METHODS, default_methods
from ntkbayes.app.model_file import from_file
from ntkbayes.app.report import sections
from ntkbayes.app.study import Study
from ntkbayes.description import describe
from ntkbayes.errors import (
    ConfigurationError,
    DataError,
    FolderInUseError,
    StorageError,
    StorageWarning,
    UnknownNameError,
)
from ntkbayes.laws import Method
from ntkbayes.predictions import surface
from ntkbayes.storage import LawFolder, provenance

MODELS = Path(__file__).parents[1] / "models"
PRIOR = nb.NTKPrior(nb.networks.mlp(depth=1), ridge=0.1)


def points(name: str = "iris", size: int = 60) -> nb.Dataset:
    return datasets.load(name).subset(jax.random.key(0), size)


def study(**changes: object) -> Study:
    settings = {
        "data": points(),
        "prior": PRIOR,
        "methods": default_methods(("map", "first-order", "laplace")),
        "baselines": False,
    }
    return Study(**{**settings, **changes})


def laws_in(folder: Path) -> set[str]:
    """By the words of their names."""
    return {path.stem.rpartition("-")[0] for path in (folder / "laws").iterdir()}


def table_without_seconds(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "comparison.csv", dtype=str).drop(
        columns=["seconds", "compile_seconds"]
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a study that ran through."""
    folder = tmp_path_factory.mktemp("finished")
    study().run(folder, command="ntkbayes compare --data iris")
    return folder


def forbid_fitting(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Method, *_: object, **__: object) -> None:
        raise AssertionError(f"{self.name} is fitted again")

    monkeypatch.setattr(Method, "fit", fail)


def interrupt_first_fit_of(kind: type[Method], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ctrl-C at the first fit of one kind. The list fills with what is fitted."""
    whole, fitted = Method.fit, []

    def fit(self: Method, *args: object, **options: object) -> object:
        fitted.append(self.name)
        if type(self) is kind and fitted.count(self.name) == 1:
            raise KeyboardInterrupt
        return whole(self, *args, **options)

    monkeypatch.setattr(Method, "fit", fit)
    return fitted


def test_run_writes_report_table_and_laws(finished):
    assert laws_in(finished) == {"map", "first-order", "laplace"}
    assert "<html" in (finished / "report.html").read_text(encoding="utf-8")
    assert list(table_without_seconds(finished)["law"]) == ["MAP", "first order", "Laplace"]
    settings = json.loads((finished / "comparison.json").read_text())["settings"]
    assert settings["command"] == "ntkbayes compare --data iris"
    assert settings["versions"]["jax"] == jax.__version__


def test_second_run_fits_nothing_and_finds_the_same(finished, monkeypatch):
    before = (finished / "comparison.csv").read_bytes()
    forbid_fitting(monkeypatch)
    again = study().run(finished)
    assert (finished / "comparison.csv").read_bytes() == before
    pd.testing.assert_frame_equal(again.table(), storage.load(finished).table())


def test_interrupted_run_goes_on_where_it_stopped(finished, tmp_path, monkeypatch):
    fitted = interrupt_first_fit_of(nb.FirstOrder, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        study().run(tmp_path)
    assert laws_in(tmp_path) == {"map"}
    assert not (tmp_path / "report.html").exists()
    study().run(tmp_path)
    assert fitted == ["MAP", "first order", "first order", "Laplace"]
    pd.testing.assert_frame_equal(table_without_seconds(tmp_path), table_without_seconds(finished))


def test_same_seed_same_table(finished, tmp_path):
    study().run(tmp_path)
    pd.testing.assert_frame_equal(table_without_seconds(tmp_path), table_without_seconds(finished))


def test_draws_of_a_law_do_not_depend_on_the_other_laws(finished, tmp_path):
    study(methods=default_methods(("laplace",))).run(tmp_path)
    alone, among = storage.load(tmp_path), storage.load(finished)
    np.testing.assert_array_equal(
        alone.predictions["Laplace"].logits, among.predictions["Laplace"].logits
    )


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seed": 1}, "seed"),
        ({"prior": nb.NTKPrior(nb.networks.mlp(depth=1), ridge=0.2)}, "prior"),
        ({"smoothing": 0.1}, "smoothing"),
        ({"temperature": 0.5}, "temperature"),
        ({"data": points(size=50)}, "data digest, test points, training points"),
    ],
)
def test_folder_of_another_study_is_refused(changes, named, finished, monkeypatch):
    forbid_fitting(monkeypatch)
    before = laws_in(finished)
    message = rf"other settings \(differing in: {named}\); choose another output folder"
    with pytest.raises(StorageError, match=message):
        study(**changes).run(finished)
    assert laws_in(finished) == before


def test_a_tempered_study_is_laplace_at_that_temperature_with_the_ridge_chosen_at_1(tmp_path):
    of_laplace = {"methods": default_methods(("laplace",)), "ridge": nb.RidgeByEvidence()}
    plain = study(**of_laplace).run(tmp_path / "plain")
    tempered = study(**of_laplace, temperature=0.1).run(tmp_path / "tempered")
    ridge = plain.settings["ridge"]["value"]
    assert tempered.settings["ridge"]["value"] == ridge
    assert tempered.settings["temperature"] == 0.1
    other = study(
        methods=of_laplace["methods"], prior=nb.NTKPrior(PRIOR.kernel, ridge=ridge * 0.1)
    ).run(tmp_path / "same mode")
    ours, theirs = (each.predictions["Laplace"] for each in (tempered, other))
    np.testing.assert_allclose(ours.mean, theirs.mean, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(ours.variance, 0.1 * theirs.variance, rtol=1e-6)
    page = (tmp_path / "tempered" / "report.html").read_text(encoding="utf-8")
    assert "Temperature 0.1: every fit divides the log likelihood by it." in page


def test_the_report_tells_where_in_the_spectrum_an_ensemble_is_narrow(tmp_path):
    methods = {"Laplace": nb.Laplace(), "random init": nb.RandomInit(num_inits=50)}
    found = study(methods=methods).run(tmp_path)
    anatomy = found.settings["anatomy"]
    assert anatomy["reference"] == "Laplace"
    assert sum(anatomy["sizes"]) == found.settings["training points"]
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<h2>Along the kernel’s eigenvectors</h2>" in page
    assert "Beside Laplace, random init is narrowest along eigenvectors" in page
    again = storage.load(tmp_path)
    assert sections.anatomy(again) == sections.anatomy(found)


def test_a_study_takes_no_tempered_likelihood_beside_its_temperature():
    likelihood = nb.likelihood.Categorical().tempered(0.5)
    with pytest.raises(ConfigurationError, match=r"give Categorical\(\) and temperature=0\.5"):
        study(likelihood=likelihood)


# --- a folder that is used further ----------------------------------------------------------------


def fits(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Fills with the names of the methods that are fitted."""
    whole, fitted = Method.fit, []

    def fit(self: Method, *args: object, **options: object) -> object:
        fitted.append(self.name)
        return whole(self, *args, **options)

    monkeypatch.setattr(Method, "fit", fit)
    return fitted


def test_fewer_more_and_other_laws_go_on_from_what_is_finished(finished, tmp_path, monkeypatch):
    fitted = fits(monkeypatch)
    study(methods=default_methods(("map",))).run(tmp_path)
    study(methods=default_methods(("first-order", "map"))).run(tmp_path)
    assert fitted == ["MAP", "first order"]
    assert list(table_without_seconds(tmp_path)["law"]) == ["first order", "MAP"]
    study(methods=default_methods(("laplace",))).run(tmp_path)
    assert list(table_without_seconds(tmp_path)["law"]) == ["Laplace"]
    study().run(tmp_path)
    assert fitted == ["MAP", "first order", "Laplace"]
    pd.testing.assert_frame_equal(table_without_seconds(tmp_path), table_without_seconds(finished))
    pd.testing.assert_frame_equal(
        storage.load(tmp_path).table(), storage.load_so_far(tmp_path).table()
    )


def test_baselines_are_laws_like_others(tmp_path, monkeypatch):
    fitted = fits(monkeypatch)
    laws = default_methods(("map",))
    study(methods=laws).run(tmp_path)
    found = study(methods=laws, baselines=True).run(tmp_path)
    assert list(found.predictions) == ["MAP", *BASELINES]
    found = study(methods=laws).run(tmp_path)
    assert (fitted, list(found.predictions)) == (["MAP"], ["MAP"])


def test_a_law_with_other_settings_is_fitted_anew_and_the_other_kept(tmp_path, monkeypatch):
    fitted = fits(monkeypatch)
    tables = []
    for draws in (8, 16, 8, 16):
        study(methods=default_methods(("map", "random-init"), num_draws=draws)).run(tmp_path)
        found = storage.load(tmp_path).predictions["random init"]
        assert found.logits.shape[0] == draws
        tables.append((tmp_path / "comparison.csv").read_bytes())
    assert fitted == ["MAP", "random init", "random init"]
    assert tables[:2] == tables[2:]
    assert tables[0] != tables[1]


def test_is_finished_means_with_these_laws(finished):
    assert study().is_finished(finished)
    assert not study(methods=default_methods(("map",))).is_finished(finished)
    assert not study(baselines=True).is_finished(finished)
    assert not study().is_finished(finished / "laws")


def test_an_interrupted_run_is_reported_with_what_is_missing(finished, tmp_path, monkeypatch):
    interrupt_first_fit_of(nb.Laplace, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        study().run(tmp_path, command="ntkbayes compare --data iris")
    found = storage.load_so_far(tmp_path)
    assert list(found.predictions) == ["MAP", "first order"]
    assert found.settings["unfinished"] == ["Laplace"]
    page = report.page(found, tmp_path)
    assert "Not finished yet: Laplace. The command that was interrupted goes on" in page
    assert "ntkbayes compare --data iris" in page
    whole, expected = storage.load(finished).table().loc["MAP"], found.table().loc["MAP"]
    scores = list(found.scores["MAP"])
    pd.testing.assert_series_equal(whole[scores], expected[scores])
    with pytest.raises(StorageError, match="holds no finished comparison"):
        storage.load(tmp_path)


def test_an_interrupted_run_with_more_laws_is_reported_with_all_that_are_finished(
    tmp_path, monkeypatch
):
    study(methods=default_methods(("map",))).run(tmp_path)
    interrupt_first_fit_of(nb.Laplace, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        study().run(tmp_path)
    assert list(storage.load_so_far(tmp_path).predictions) == ["MAP", "first order"]
    assert list(storage.load(tmp_path).predictions) == ["MAP"]
    assert not study(methods=default_methods(("map",))).is_finished(tmp_path)


def test_a_run_without_a_finished_law_cannot_be_reported(tmp_path, monkeypatch):
    interrupt_first_fit_of(nb.MAP, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        study().run(tmp_path)
    with pytest.raises(StorageError, match="holds no finished law yet"):
        storage.load_so_far(tmp_path)


@pytest.mark.parametrize("content", ["{", '{"laws": 3}', '{"laws": {"MAP": "0"}, "seed": -1}'])
def test_a_broken_record_of_an_unfinished_run_is_refused(content, finished, tmp_path):
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    (tmp_path / "unfinished.json").write_text(content)
    with pytest.raises(StorageError, match=r"unfinished\.json .*delete it and run again"):
        storage.load_so_far(tmp_path)


def test_saving_a_comparison_ends_what_was_unfinished(finished, tmp_path, monkeypatch):
    interrupt_first_fit_of(nb.Laplace, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        study().run(tmp_path)
    storage.save(storage.load(finished), tmp_path)
    assert list(storage.load_so_far(tmp_path).predictions) == ["MAP", "first order", "Laplace"]


@pytest.mark.parametrize(
    ("file", "what"),
    [
        ("studies/one/laws/map.nc", "a sweep"),
        ("runs/ridge-width64.npz", "a study of the lazy regime"),
    ],
)
def test_folder_with_results_of_another_kind_is_refused(file, what, tmp_path, monkeypatch):
    forbid_fitting(monkeypatch)
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_bytes(b"")
    with pytest.raises(StorageError, match=f"holds {what}; choose another output folder"):
        study().run(tmp_path)


def test_a_law_whose_settings_hide_their_contents_is_not_reused(tmp_path):
    odd = {"odd": describe(each for each in ())}
    with LawFolder(tmp_path) as folder:
        folder.claim({})
        with pytest.warns(StorageWarning, match="of type generator"):
            folder.expect({**odd, "MAP": describe(nb.MAP())})
        folder.path_of("odd").write_bytes(b"")
        folder.expect({"MAP": describe(nb.MAP())})
        with pytest.raises(StorageError, match="settings of type generator hide their contents"):
            folder.expect(odd)


# --- folders that are refused ---------------------------------------------------------------------


def test_folder_with_laws_of_an_unknown_study_is_refused(tmp_path):
    (tmp_path / "laws").mkdir()
    (tmp_path / "laws" / "map.nc").write_bytes(b"")
    with pytest.raises(StorageError, match=r"holds laws but no study\.json"):
        study().run(tmp_path)


def test_folder_of_an_unreadable_study_is_refused(tmp_path):
    (tmp_path / "laws").mkdir()
    (tmp_path / "laws" / "map.nc").write_bytes(b"")
    (tmp_path / "study.json").write_bytes(b"\xff{")
    with pytest.raises(StorageError, match=r"study\.json cannot be read"):
        study().run(tmp_path)


ACTIVATION = """
    import jax.numpy as jnp
    import ntkbayes as nb

    def activation(x):
        return jnp.tanh(x)

    network = nb.networks.mlp(depth=1, activation=activation)
    prior = nb.NTKPrior(network, ridge=0.1)
    data = nb.Dataset([[0.0], [1.0], [2.0], [3.0]] * 4, [0, 0, 1, 1] * 4)
    study = nb.Study(data, prior, methods={"MAP": nb.MAP()}, baselines=False)
"""


def test_edited_function_does_not_find_its_old_results(tmp_path, monkeypatch):
    path, folder = tmp_path / "mine.py", tmp_path / "out"
    path.write_text(textwrap.dedent(ACTIVATION))
    from_file(path).run(folder)
    before = (folder / "comparison.csv").read_bytes()
    forbid_fitting(monkeypatch)
    from_file(path).run(folder)
    path.write_text(textwrap.dedent(ACTIVATION).replace("jnp.tanh(x)", "jnp.sin(x)"))
    with pytest.raises(StorageError, match=r"other settings \(differing in: prior\)"):
        from_file(path).run(folder)
    assert (folder / "comparison.csv").read_bytes() == before


def test_other_random_numbers_or_versions_are_another_study(finished, monkeypatch):
    forbid_fitting(monkeypatch)
    with (
        jax.default_prng_impl("unsafe_rbg"),
        pytest.raises(StorageError, match=r"differing in: .*random numbers\)"),
    ):
        study().run(finished)
    told = provenance.versions()
    monkeypatch.setattr(provenance, "versions", lambda: {**told, "jax": "0.0.1"})
    with pytest.raises(StorageError, match=r"differing in: versions\)"):
        study().run(finished)


def test_settings_that_hide_their_contents_are_warned_of_and_not_resumed(tmp_path):
    mean = partial(lambda source, x: np.zeros((len(x), 3)), (i for i in ()))
    hidden = study(
        prior=nb.NTKPrior(nb.networks.mlp(depth=1), ridge=0.1, mean=mean),
        methods=default_methods(("map",)),
    )
    with LawFolder(tmp_path) as folder, pytest.warns(StorageWarning, match="of type generator"):
        folder.claim(hidden.identity())
    (tmp_path / "laws" / "map.nc").write_bytes(b"")
    with pytest.raises(StorageError, match="settings of type generator hide their contents"):
        hidden.run(tmp_path)


def test_laws_of_another_study_in_the_folder_are_refused(finished, tmp_path, monkeypatch):
    other = study(methods=default_methods(("map",)), smoothing=0.1)
    other.run(tmp_path)
    shutil.copytree(finished / "laws", tmp_path / "laws", dirs_exist_ok=True)
    forbid_fitting(monkeypatch)
    with pytest.raises(StorageError, match=r"map-.*\.nc was not written by this study"):
        other.run(tmp_path)


def test_folder_of_an_earlier_version_is_refused_with_the_reason(finished, tmp_path, monkeypatch):
    forbid_fitting(monkeypatch)
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    told = json.loads((tmp_path / "study.json").read_text())
    del told["versions"]
    (tmp_path / "study.json").write_text(json.dumps(told))
    with pytest.raises(
        StorageError, match="by an earlier version of ntkbayes, which did not record"
    ):
        study().run(tmp_path)


@pytest.mark.parametrize("content", [b"null", b"[]", b"[" * 100_000])
def test_folder_of_a_hostile_study_is_refused(content, tmp_path):
    (tmp_path / "laws").mkdir()
    (tmp_path / "laws" / "map.nc").write_bytes(b"")
    (tmp_path / "study.json").write_bytes(content)
    with pytest.raises(StorageError, match=r"study\.json cannot be read"):
        study().run(tmp_path)


def test_two_runs_do_not_share_a_folder(tmp_path, monkeypatch):
    forbid_fitting(monkeypatch)
    with files.held(tmp_path), pytest.raises(FolderInUseError, match="in use by process"):
        study().run(tmp_path)


def test_study_that_fails_before_its_first_law_does_not_keep_the_folder(tmp_path, monkeypatch):
    interrupt_first_fit_of(nb.MAP, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        study(seed=1).run(tmp_path)
    study(methods=default_methods(("map",))).run(tmp_path)
    assert laws_in(tmp_path) == {"map"}


def test_plane_of_two_features_takes_no_more_draws_than_the_law_holds(tmp_path, monkeypatch):
    monkeypatch.setattr("ntkbayes.app.evaluation.surface", partial(surface, resolution=3))
    methods = default_methods(("random-init",), num_draws=20)
    found = study(data=points("moons"), methods=methods).run(tmp_path)
    assert found.surfaces["random init"].probabilities.shape == (3, 3, 2)
    assert "<html" in (tmp_path / "report.html").read_text(encoding="utf-8")


# --- test points of one's own ---------------------------------------------------------------------


def test_test_points_of_ones_own_give_what_the_split_gives(tmp_path):
    whole = points()
    train, test = whole.split(jax.random.key(0), standardise=False)
    by_split = study(data=whole).run(tmp_path / "split").predictions["MAP"]
    given = study(data=train, test=test).run(tmp_path / "given").predictions["MAP"]
    np.testing.assert_array_equal(given.targets, by_split.targets)
    np.testing.assert_allclose(given.probabilities, by_split.probabilities, rtol=0, atol=1e-12)


def test_other_test_points_are_another_study(tmp_path):
    train, test = points().split(jax.random.key(1), standardise=False)
    study(data=train, test=test).run(tmp_path)
    with pytest.raises(StorageError, match="test data digest"):
        study(data=train, test=test.take(range(5))).run(tmp_path)


def test_test_points_of_other_columns_or_classes_are_refused(tmp_path):
    train, test = points().split(jax.random.key(1), standardise=False)
    narrow = nb.Dataset(test.features[:, :2], test.targets, class_names=test.class_names)
    renamed = nb.Dataset(test.features, test.targets, class_names=["u", "v", "w"])
    with pytest.raises(DataError, match="2"):
        study(data=train, test=narrow).run(tmp_path)
    with pytest.raises(ConfigurationError, match=r"classes \('u', 'v', 'w'\).*like=train"):
        study(data=train, test=renamed).run(tmp_path)


def test_a_law_with_the_name_of_a_baseline_is_refused():
    with pytest.raises(ConfigurationError, match="'logistic regression' is the name of a baseline"):
        study(methods={"logistic regression": nb.MAP()}, baselines=True)


def test_negative_seed_is_refused():
    with pytest.raises(ConfigurationError, match=r"seed must be at least 0 .* got -1"):
        study(seed=-1)


def test_every_law_has_a_default_method():
    assert tuple(map(type, default_methods(tuple(METHODS)).values())) == tuple(METHODS.values())
    assert list(default_methods()) == ["MAP", "random init", "first order", "Laplace", "NUTS"]
    made = default_methods(("random-init", "nuts"), num_draws=7)
    assert made["random init"].num_inits == made["NUTS"].num_samples == 7


def test_bad_choices_of_laws_are_named():
    with pytest.raises(UnknownNameError, match="unknown law 'laplce'; known are: map"):
        default_methods(("laplce",))
    with pytest.raises(ConfigurationError, match="no laws to compare; choose from map"):
        default_methods(())
    with pytest.raises(ConfigurationError, match="draws must be at least 4; got 3"):
        default_methods(num_draws=3)


# --- model files ----------------------------------------------------------------------------------

LAWS = {
    "binary": ["MAP", "random init", "first order", "Laplace", "NUTS"],
    "multiclass": ["MAP", "random init", "random init, t = 10", "Laplace", "NUTS"],
    "annotators": ["MAP", "random init", "Laplace", "NUTS"],
    "ordinal": ["MAP", "random init", "Laplace", "NUTS"],
    "convolutional": ["MAP", "random init", "Laplace"],
    "hierarchical": ["MAP", "random init", "Laplace", "hierarchical"],
}
POINTS = {"ordinal": 100, "convolutional": 60, "hierarchical": 90}
# The laws that are fitted here where others of the file are tried elsewhere under the same likelihood.
FITTED = {
    "annotators": ["MAP", "Laplace"],
    "ordinal": ["MAP", "Laplace"],
    "convolutional": ["MAP", "random init"],
    "hierarchical": ["Laplace", "hierarchical"],
}


def test_every_model_file_is_tried():
    assert {path.stem for path in MODELS.glob("*.py")} == set(LAWS)


# A few draws are too few for chains to have converged; here they need only run.
@pytest.mark.filterwarnings("ignore::ntkbayes.errors.ConvergenceWarning")
@pytest.mark.parametrize("name", LAWS)
def test_model_file_runs_and_every_law_of_it_beats_the_base_rate(name, tmp_path):
    model = from_file(MODELS / f"{name}.py")
    assert list(model.methods) == LAWS[name]
    sizes = {"num_inits": 20, "num_samples": 20, "num_warmup": 50, "num_chains": 2}
    if name == "hierarchical":  # each gradient is through a Cholesky factor
        sizes = {"num_samples": 40, "num_warmup": 60, "num_chains": 1}
    small = {
        law: dataclasses.replace(method, **{k: v for k, v in sizes.items() if hasattr(method, k)})
        for law, method in model.methods.items()
        if law in FITTED.get(name, LAWS[name])
    }
    data = datasets.load(model.data) if isinstance(model.data, str) else model.data
    data = data.subset(jax.random.key(0), POINTS.get(name, 40))
    model = dataclasses.replace(model, data=data, methods=small, baselines=False)
    found = model.run(tmp_path)
    assert list(found.predictions) == list(small)
    assert (found.reference == "NUTS") == ("NUTS" in small)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert all(escape(method.kind.description) in page for method in small.values())
    frequencies = data.targets.mean(axis=0)
    base_rate = -frequencies @ np.log(frequencies)
    nll = {law: scores["nll"].value for law, scores in found.scores.items()}
    assert max(nll.values()) < base_rate - 0.1, nll


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("x = 1", "must define `study = .*`, but defines no study"),
        ("study = 3", "its study is of type int"),
        ("x = 1\ndef (", "line 2 is not Python: invalid syntax"),
        ("\n\nimport missing_module", "line 3 failed: ModuleNotFoundError: .*missing_module"),
        ("from ntkbayes import datasets\ndatasets.load('iriss')", "line 2 failed: .*'iriss'"),
    ],
)
def test_broken_model_file_is_named_with_the_line(content, message, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(content)
    with pytest.raises(ConfigurationError, match=rf"mine\.py.*{message}"):
        from_file(path)


def test_model_file_that_is_none_is_named(tmp_path):
    with pytest.raises(StorageError, match=r"no file .*missing\.py; check the path"):
        from_file(tmp_path / "missing.py")
    (tmp_path / "notes.txt").write_text("study = 3")
    with pytest.raises(ConfigurationError, match=r"notes\.txt is not a Python file"):
        from_file(tmp_path / "notes.txt")


# --- the record -----------------------------------------------------------------------------------


def test_description_is_plain_json():
    prior = nb.NTKPrior(
        nb.networks.mlp(depth=2, activation=jax.numpy.tanh, skip=True), ridge=0.1, mean=np.ones(3)
    )
    told = describe(prior)
    assert json.loads(json.dumps(told)) == told
    assert told["ridge"] == 0.1
    assert told["mean"] == [1.0, 1.0, 1.0]
    for method in default_methods().values():
        assert json.loads(json.dumps(describe(method))) == describe(method)
    assert describe(nb.NUTS(progress=True)) == describe(nb.NUTS())
    assert describe(nb.likelihood.Categorical()) == {"type": "Categorical"}
