"""What survives when a study is killed, shares its folder with another run, or fills the disk.

Run: python benchmarks/robustness.py [folder]

A small study (MAP, Laplace and random init on 60 points of iris) runs undisturbed. Then

* fifty times it is started or resumed, and killed (SIGKILL) at a random moment;
* two processes run it in one folder at once, five times;
* its files meet a size limit (RLIMIT_FSIZE), at each of several sizes;
* its folder is on a file system of 300 kB, where one can be mounted (as root, on Linux).

After every disturbance each law in the folder must equal that of the undisturbed run or be absent, each
process must have ended with one of our errors or by the kill, and an undisturbed rerun must give the
same table. Any difference is a failure: the script ends with a traceback.

Compiled programs come from JAX's persistent cache, in the folder given.
"""

import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

KILLS, PAIRS = 50, 5
SIZES = (0, 1_000, 60_000, 200_000)  # bytes
LAWS = ("MAP", "Laplace", "random init")


def run_study(folder: str, limit: int | None = None) -> None:
    """Run the study, in its own process. Exits with 0, or with 3 and one of our errors."""
    import jax

    jax.config.update("jax_enable_x64", True)
    import ntkbayes as nb

    prior = nb.NTKPrior(nb.networks.mlp(depth=1), ridge=0.1)
    data = nb.datasets.load("iris").subset(jax.random.key(0), 60)
    methods = {"MAP": nb.MAP(), "Laplace": nb.Laplace(), "random init": nb.RandomInit(num_inits=50)}
    study = nb.Study(data, prior, methods=methods, baselines=False)
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    print("begun", flush=True)
    try:
        study.run(folder)
    except nb.errors.NTKBayesError as error:
        print(f"{type(error).__name__}: {error}", flush=True)
        sys.exit(3)


def start(folder: Path, *more: object) -> subprocess.Popen:
    words = [sys.executable, __file__, "--study", str(folder), *map(str, more)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen, *allowed: int) -> str:
    """Wait for a process, and return its output if its exit code is allowed."""
    out, error = process.communicate(timeout=600)
    assert process.returncode in allowed, (process.returncode, out, error)
    return out


def laws_in(folder: Path) -> dict[str, np.ndarray]:
    """Logits of each law in the folder; broken files raise StorageError."""
    from ntkbayes.storage import LawFolder

    laws = LawFolder(folder)
    names = [name for name in LAWS if laws.has(name)]
    return {name: np.asarray(laws.load(name).predictions.logits) for name in names}


def check(folder: Path, whole: Path) -> int:
    """Check that every law in the folder is the undisturbed run's; return their number."""
    expected, laws = laws_in(whole), laws_in(folder) if folder.exists() else {}
    for name, logits in laws.items():
        np.testing.assert_array_equal(logits, expected[name])
    return len(laws)


def check_finished(folder: Path, whole: Path) -> None:
    """The same laws and table, a whole report, and nothing else."""
    assert check(folder, whole) == len(LAWS)
    tables = []
    for place in (folder, whole):
        lines = (place / "comparison.csv").read_text().splitlines()
        tables.append([line.rpartition(",")[0] for line in lines])  # the last column is seconds
    assert tables[0] == tables[1]
    assert (folder / "report.html").read_text(encoding="utf-8").rstrip().endswith("</html>")
    names = [
        {str(path.relative_to(place)) for path in place.rglob("*")} for place in (folder, whole)
    ]
    assert names[0] == names[1], names[0] ^ names[1]


def kills(work: Path, whole: Path, took: float) -> None:
    """Kill each run at a random moment after its start; the next resumes. A run that finishes before
    its kill, and the last one, must end like the undisturbed run; then the folder is emptied."""
    rng, left, killed, ends = np.random.default_rng(0), Counter[int](), 0, 0
    folder = work / "killed"
    while folder.exists() or killed < KILLS:
        process = start(folder)
        assert process.stdout is not None
        process.stdout.readline()
        try:
            process.wait(took * rng.uniform(0, 1) if killed < KILLS else None)
        except subprocess.TimeoutExpired:
            process.kill()
            finish(process, -signal.SIGKILL)
            killed += 1
            left[check(folder, whole)] += 1
            continue
        finish(process, 0)
        check_finished(folder, whole)
        shutil.rmtree(folder)
        ends += 1
    counts = ", ".join(f"{left[n]} with {n}" for n in range(len(LAWS) + 1))
    print(f"kills: {KILLS}; laws finished by then: {counts}; runs to the end: {ends}, all equal")


def pairs(work: Path, whole: Path) -> None:
    """Two at once: one is refused and told who holds the folder, unless it started after the other."""
    outcomes = Counter[str]()
    for _ in range(PAIRS):
        folder = work / "pair"
        both = [start(folder), start(folder)]
        ended = [finish(process, 0, 3) for process in both]
        codes = [process.returncode for process in both]
        assert 0 in codes, ended
        for code, out in zip(codes, ended, strict=True):
            assert code == 0 or "is in use by" in out, out
        outcomes["one refused" if 3 in codes else "one after the other"] += 1
        check_finished(folder, whole)
        shutil.rmtree(folder)
    print(f"pairs in one folder: {PAIRS}; {dict(outcomes)}; all results equal")


def limits(work: Path, whole: Path) -> None:
    """No file may exceed a size: an error, nothing broken, and a rerun finishes."""
    for size in SIZES:
        folder = work / "limited"
        out = finish(start(folder, size), 3)
        assert "File too large" in out, out
        laws = check(folder, whole)
        finish(start(folder), 0)
        check_finished(folder, whole)
        shutil.rmtree(folder)
        print(f"files of at most {size} bytes: StorageError, {laws} laws whole; rerun equal")


def small_disk(work: Path, whole: Path) -> None:
    """A file system that fills."""
    disk = work / "disk"
    disk.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(words, capture_output=True).returncode:
        print("a file system of 300 kB: none can be mounted here")
        return
    try:
        out = finish(start(disk / "study"), 3)
        assert "No space left on device" in out, out
        laws = check(disk / "study", whole)
        subprocess.run(["mount", "-o", "remount,size=50m", str(disk)], check=True)
        finish(start(disk / "study"), 0)
        check_finished(disk / "study", whole)
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    print(f"a file system of 300 kB: StorageError, {laws} laws whole; rerun on 50 MB equal")


def main() -> None:
    import jax

    jax.config.update("jax_enable_x64", True)
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(sys.argv[1] if len(sys.argv) > 1 else temporary)
        cache = {
            "JAX_COMPILATION_CACHE_DIR": os.environ.get(
                "JAX_COMPILATION_CACHE_DIR", str(work / "cache")
            ),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
        os.environ |= cache
        whole = work / "whole"
        finish(start(whole), 0)  # fills the cache
        shutil.rmtree(whole)
        process = start(whole)
        process.stdout.readline()  # type: ignore[union-attr]
        begin = time.perf_counter()
        finish(process, 0)
        took = time.perf_counter() - begin
        check_finished(whole, whole)
        print(
            f"undisturbed: {took:.1f} s after its begin, the largest law "
            f"{max(p.stat().st_size for p in whole.glob('laws/*'))} bytes"
        )
        for part in (pairs, limits, small_disk):
            part(work, whole)
        kills(work, whole, took)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--study"]:
        run_study(sys.argv[2], *map(int, sys.argv[3:]))
    else:
        main()
