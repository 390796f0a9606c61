"""Files are whole or not there, a folder has one writer, and formats are read with care."""

import json
import os
import subprocess
import sys
import textwrap
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ntkbayes import files
from ntkbayes.errors import FolderInUseError, StorageError, StorageWarning
from ntkbayes.files import held, load_arrays, read_json, replace_all, save_arrays, slug, to_json

# --- names ----------------------------------------------------------------------------------------

ALIKE = ["MAP", "map", "Map", "α", "β", "a b", "a-b", "a_b", " a b", "\u00e9", "e\u0301", "", " "]
RESERVED = [
    "a/b",
    "../a",
    "con",
    "NUL",
    "com1",
    "aux.nc",
    ".",
    "..",
    ".hidden",
    "x" * 5000,
    "\0",
    "\udc80",
    "a\nb",
]


def test_names_that_are_alike_have_files_of_their_own():
    slugs = [slug(name) for name in [*ALIKE, *RESERVED]]
    on_disk = {unicodedata.normalize("NFC", name).casefold() for name in slugs}
    assert len(on_disk) == len(slugs)


@given(st.text() | st.sampled_from([*ALIKE, *RESERVED]))
def test_a_name_becomes_a_file_name_on_every_system(name):
    assert slug(name) == slug(name)
    assert len(slug(name)) <= 51
    assert set(slug(name)) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert slug(slug(name)) != slug(name)
    assert "-" not in (slug(name)[0], slug(name)[-1])


# --- writing --------------------------------------------------------------------------------------


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_several_files_are_replaced_together_or_not_at_all(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    replace_all([(first, b"1"), (second, b"2")])

    def stopped():
        yield first, b"one"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replace_all(stopped())
    with pytest.raises(StorageError, match=r"could not write .*missing/third"):
        replace_all([(first, b"one"), (tmp_path / "missing" / "third", b"")])
    assert (first.read_bytes(), second.read_bytes()) == (b"1", b"2")
    assert names_in(tmp_path) == {"first", "second"}


def test_no_link_is_written_through(tmp_path, monkeypatch):
    precious = tmp_path / "precious"
    precious.write_text("mine")
    monkeypatch.setattr(files.secrets, "token_hex", lambda _: "00")
    for name in (".ntkbayes-00.part", "report.html", ".report.html.part", "attempts.log"):
        (tmp_path / name).symlink_to(precious)
    with pytest.raises(StorageError, match="could not write"):
        files.write_text(tmp_path / "other.html", "overwritten")
    monkeypatch.undo()
    files.write_text(tmp_path / "report.html", "a report")
    assert not (tmp_path / "report.html").is_symlink()
    with pytest.raises(StorageError, match=r"could not write .*attempts\.log"):
        files.append_line(tmp_path / "attempts.log", "overwritten")
    assert precious.read_text() == "mine"


def test_files_have_the_permissions_that_the_user_asks_for(tmp_path):
    before = os.umask(0o027)
    try:
        files.write_text(tmp_path / "file", "text")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_text_that_is_none_is_escaped(tmp_path):
    files.write_text(tmp_path / "file", "Gr\udcfc\u00dfe")
    assert (tmp_path / "file").read_text(encoding="utf-8") == "Gr\\udcfc\u00dfe"


# --- locks ----------------------------------------------------------------------------------------

HOLDER = """
    import fcntl, json, os, sys, time
    descriptor = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    os.write(descriptor, json.dumps({"pid": 7, "host": "far", "since": "long ago"}).encode())
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_folder_in_use_says_who_has_it_and_is_free_once_that_is_killed(tmp_path):
    script = [sys.executable, "-c", textwrap.dedent(HOLDER), str(tmp_path / ".ntkbayes.lock")]
    with subprocess.Popen(script, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(FolderInUseError, match="process 7 on far since long ago"),
            held(tmp_path),
        ):
            pytest.fail("held twice")
        holder.kill()
    with held(tmp_path):
        words = rf"process {os.getpid()} on .* since .*; wait until .* another output folder"
        with pytest.raises(FolderInUseError, match=words), held(tmp_path):
            pytest.fail("held twice")
    with held(tmp_path):
        pass


def test_what_a_killed_run_had_half_written_is_removed(tmp_path):
    (tmp_path / "laws").mkdir()
    for place in (tmp_path, tmp_path / "laws"):
        (place / ".ntkbayes-0123456789abcdef.part").write_text("half")
        (place / "other.part").write_text("not ours")
    with held(tmp_path):
        assert names_in(tmp_path / "laws") == {"other.part"}
        assert names_in(tmp_path) == {"other.part", "laws", ".ntkbayes.lock"}


def test_a_lock_that_is_a_link_is_refused(tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("mine")
    for link in (os.symlink, os.link):
        link(precious, tmp_path / ".ntkbayes.lock")
        with pytest.raises(StorageError, match=r"\.ntkbayes\.lock"), held(tmp_path):
            pytest.fail("held")
        (tmp_path / ".ntkbayes.lock").unlink()
    assert precious.read_text() == "mine"


def test_a_file_system_without_locks_is_warned_of(tmp_path, monkeypatch):
    import errno
    import fcntl

    def refuse(descriptor, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with (
        pytest.warns(StorageWarning, match="has no locks .*no other run writes there"),
        held(tmp_path),
    ):
        pass


def test_a_folder_that_cannot_be_locked_is_named(tmp_path):
    with pytest.raises(StorageError, match=r"could not lock .*missing"), held(tmp_path / "missing"):
        pytest.fail("held")


# --- JSON and arrays ------------------------------------------------------------------------------

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda part: st.lists(part) | st.dictionaries(st.text(), part),
    max_leaves=10,
)


def refuse_constant(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")


@given(PLAIN)
def test_json_is_strict_and_says_what_was_meant(value):
    found = json.loads(to_json(value), parse_constant=refuse_constant)

    def same(a, b):
        if isinstance(a, float) and not np.isfinite(a):
            return repr(float(b)) == repr(a)
        if isinstance(a, dict):
            return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
        return all(map(same, a, b)) if isinstance(a, list) else a == b

    assert same(value, found)


def test_numbers_of_numpy_are_numbers_in_json():
    told = {"a": np.float32(0.5), "b": np.arange(2), "c": np.bool_(True), 3: np.inf, "p": Path("x")}
    assert json.loads(to_json(told)) == {
        "a": 0.5,
        "b": [0, 1],
        "c": True,
        "3": "Infinity",
        "p": "x",
    }


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b"3",
        b"\xff\xfe",
        b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"a": ' + b"[" * 300 + b"]" * 300 + b"}",
        b'{"a": ' + b"1" * 10_000 + b"}",
    ],
)
def test_json_that_is_no_object_of_a_reasonable_size_is_refused(content, tmp_path):
    path = tmp_path / "file.json"
    path.write_bytes(content)
    with pytest.raises(StorageError, match=r"file\.json cannot be read"):
        read_json(path)


def test_json_of_earlier_versions_is_read(tmp_path):
    path = tmp_path / "file.json"
    path.write_text('{"a": Infinity, "b": [NaN]}')
    assert read_json(path)["a"] == np.inf


def test_arrays_are_read_back_and_bombs_are_refused(tmp_path):
    path = tmp_path / "file.npz"
    save_arrays(path, {"x": np.arange(3.0), "y": np.zeros((0, 2))})
    found = load_arrays(path)
    np.testing.assert_array_equal(found["x"], np.arange(3.0))
    assert found["y"].shape == (0, 2)
    np.savez_compressed(path, x=np.zeros(10**6))
    with pytest.raises(StorageError, match="claim 8000"):
        load_arrays(path)
    np.savez(path, x=np.array([object()], dtype=object))
    with pytest.raises(StorageError, match="allow_pickle"):
        load_arrays(path)
    for content in (b"", b"PK", path.read_bytes()[:100]):
        path.write_bytes(content)
        with pytest.raises(StorageError, match=r"file\.npz cannot be read"):
            load_arrays(path)
