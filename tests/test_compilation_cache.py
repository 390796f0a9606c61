"""The cache of compiled programs: results do not depend on it, and nothing about it is ever an error."""

import functools
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import pandas as pd
import pytest

from ntkbayes.app import compilation_cache
from ntkbayes.app.cli import main
from ntkbayes.app.compilation_cache import VARIABLE, chosen_folder, remove_oldest
from ntkbayes.errors import CacheWarning

COMPARE = [sys.executable, "-m", "ntkbayes", "compare", "--data", "iris", "--train-size", "40"]
COMPARE += ["--depth", "1", "--laws", "map", "--no-baselines", "--out"]
PROGRAM = """
import resource, sys
import jax
from ntkbayes.app.compilation_cache import chosen_folder, kept

if sys.argv[1:] == ["full disk"]:
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, -1))
with kept(chosen_folder()):
    result = jax.numpy.abs(jax.jit(lambda x: 2 * x - 1)(-20.5))
print(float(result), jax.config.jax_compilation_cache_dir)
"""


@pytest.fixture(autouse=True)
def _nothing_told(monkeypatch):
    monkeypatch.setattr(compilation_cache, "_has_told", False)


def environment(folder: object, **more: str) -> dict[str, str]:
    others = {name: value for name, value in os.environ.items() if "CACHE" not in name}
    return others | {VARIABLE: str(folder)} | more


def run_program(folder: object, *words: str, **more: str) -> tuple[str, str, list[str]]:
    """Of a process that compiles a program: its result, JAX's folder, and what it warned of."""
    command = [sys.executable, "-c", PROGRAM, *words]
    env = environment(folder, **more)
    done = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
    result, place = done.stdout.split()
    return result, place, re.findall(r"\w*Warning: .*", done.stderr)


def entries(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("jaxlib-*/*-cache")}


def table(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "comparison.csv").drop(columns=["seconds", "compile_seconds"])


def test_comparisons_are_the_same_without_a_cache_and_with_one_of_a_killed_run(tmp_path):
    cache, off = tmp_path / "cache", tmp_path / "off"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    begin = functools.partial(subprocess.Popen, env=environment(cache), **quiet)
    with (
        begin([*COMPARE, tmp_path / "other"]) as other,
        begin([*COMPARE, tmp_path / "killed"]) as one,
    ):
        try:
            while not entries(cache) and one.poll() is None:
                time.sleep(0.02)
            time.sleep(random.Random(0).uniform(0, 2))
            one.kill()
            messages = [other.communicate()[1]]
        finally:
            other.kill()
            one.kill()
    assert one.returncode == -signal.SIGKILL
    assert other.returncode == 0
    before = entries(cache)
    for folder, cached in (("third", cache), ("off", "off")):
        done = subprocess.run([*COMPARE, tmp_path / folder], env=environment(cached), **quiet)
        assert done.returncode == 0
        messages.append(done.stderr)
    for said in messages:
        assert len(re.findall("^warning", said, re.MULTILINE)) <= 1
    assert entries(cache).keys() == before.keys()  # the third has compiled nothing new
    for folder in ("other", "third"):
        pd.testing.assert_frame_equal(table(tmp_path / folder), table(off), check_exact=True)


def test_a_file_half_written_is_one_line_and_written_again(tmp_path):
    result = run_program(tmp_path)
    assert result[0] == "42.0"
    assert result[2] == []
    written = entries(tmp_path)
    assert len(written) > 1
    place = Path(result[1])
    for name, content in written.items():
        (place / name).write_bytes(content[: len(content) // 2])
    *same, said = run_program(tmp_path)
    assert same == list(result[:2])
    assert len(said) == 1
    assert f"some compiled programs in {place} cannot be read" in said[0]
    assert {k: len(v) for k, v in entries(tmp_path).items()} == {
        k: len(v) for k, v in written.items()
    }
    assert run_program(tmp_path) == result


def test_a_full_disk_is_one_line_and_leaves_no_half_file(tmp_path):
    result, place, said = run_program(tmp_path, "full disk")
    assert result == "42.0"
    assert len(said) == 1
    assert f"compiled programs cannot be kept in {place} (OSError: " in said[0]
    assert f"set {VARIABLE} to another folder, or to off" in said[0]
    assert entries(tmp_path) == {}


def test_a_cache_of_jax_comes_first(tmp_path):
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    assert run_program(ours, JAX_COMPILATION_CACHE_DIR=str(theirs))[1:] == (str(theirs), [])
    assert not ours.exists()


def test_variable_moves_the_cache_or_switches_it_off(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for given in ("", "off", " OFF "):
        monkeypatch.setenv(VARIABLE, given)
        assert chosen_folder() is None
    for given, folder in (
        ("here", tmp_path / "here"),
        ("~/there", Path.home() / "there"),
        (str(tmp_path), tmp_path),
    ):
        monkeypatch.setenv(VARIABLE, given)
        assert chosen_folder() == folder
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = chosen_folder()
    assert folder.is_absolute()
    assert "ntkbayes" in folder.parts


def test_no_cache_is_an_option_of_every_command_that_computes(tmp_path, monkeypatch):
    before = jax.config.values["jax_compilation_cache_dir"]
    for command in ("compare", "sweep", "lazy"):
        monkeypatch.setenv(VARIABLE, str(tmp_path / "cache"))
        words = [command, "--data", "iris", "--depth", "0", "--no-cache", "--out", str(tmp_path)]
        monkeypatch.setattr(sys, "argv", ["ntkbayes", *words])
        with pytest.raises(SystemExit):  # no network has depth 0
            main()
        assert os.environ[VARIABLE] == "off"
    assert list(tmp_path.iterdir()) == []
    assert jax.config.values["jax_compilation_cache_dir"] == before


def test_a_user_without_a_home_is_told_once(monkeypatch):
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setattr("platformdirs.user_cache_path", lambda *_, **__: Path("~/.cache/ntkbayes"))
    with pytest.warns(CacheWarning, match="has no home folder; set NTKBAYES_CACHE_DIR"):
        assert chosen_folder() is None
    assert chosen_folder() is None


def in_the_way(folder: Path, _monkeypatch) -> None:
    folder.write_text("")


def below_a_file(folder: Path, _monkeypatch) -> None:
    folder.parent.rmdir()
    folder.parent.write_text("")


def open_to_others(folder: Path, _monkeypatch) -> None:
    folder.mkdir()
    folder.chmod(0o770)


def of_another_user(folder: Path, monkeypatch) -> None:
    folder.mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: folder.stat().st_uid + 1)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (in_the_way, r"it is no folder"),
        (below_a_file, r"Not a directory"),
        (open_to_others, r"others may write to it; chmod go-w .*cache"),
        (of_another_user, r"it belongs to another user, whose programs would be run"),
    ],
)
def test_folder_of_no_use_is_a_warning_with_the_reason(spoil, message, tmp_path, monkeypatch):
    folder = tmp_path / "parent" / "cache"
    folder.parent.mkdir()
    spoil(folder, monkeypatch)
    with pytest.warns(CacheWarning, match=rf"no compilation cache in .*cache: {message}; set NTK"):
        assert not compilation_cache._is_usable(folder / "jaxlib")


def test_folder_that_is_made_is_the_users_alone(tmp_path):
    place = tmp_path / "deep" / "cache" / "jaxlib"
    assert compilation_cache._is_usable(place)
    assert {folder.stat().st_mode & 0o777 for folder in (place, place.parent)} == {0o700}


def test_oldest_programs_go_first_and_nothing_else_does(tmp_path):
    for version in ("jaxlib-1-a", "jaxlib-2-b", "mine"):
        (tmp_path / version).mkdir()
    ages = {
        "jaxlib-1-a/old-cache": 5,
        "jaxlib-2-b/older-cache": 6,
        "jaxlib-2-b/new-cache": 1,
        "jaxlib-1-a/notes.txt": 9,
        "mine/precious-cache": 9,
    }
    now = time.time()
    for name, age in ages.items():
        (tmp_path / name).write_bytes(b"x" * 100)
        os.utime(tmp_path / name, (now - age, now - 10))
    remove_oldest(tmp_path, largest=300)
    assert all((tmp_path / name).exists() for name in ages)
    remove_oldest(tmp_path, largest=250)
    assert {name for name in ages if not (tmp_path / name).exists()} == {"jaxlib-2-b/older-cache"}
    remove_oldest(tmp_path, largest=0)
    assert {p.name for p in tmp_path.glob("*/*")} == {"notes.txt", "precious-cache"}
