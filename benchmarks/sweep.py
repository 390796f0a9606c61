"""A sweep of 3 data sets × 3 ridges × 3 seeds that loses a worker in the middle.

    python benchmarks/sweep.py [--workers 2] [--out FOLDER]

Once half of the studies are finished, kills a worker in the middle of one. Prints how often each study
was started, which shows that all 27 results are there and which were recomputed; then runs the
sweep again, which has nothing left to do.
"""

import argparse
import os
import signal
import tempfile
import threading
import time
from pathlib import Path

import jax

jax.config.update("jax_enable_x64", True)

import ntkbayes as nb
from ntkbayes.app.methods import default_methods
from ntkbayes.app.sweep import Sweep, grid
from ntkbayes.app.workers import study_folder

STUDY = nb.Study(
    data="wine",
    prior=nb.NTKPrior(nb.networks.mlp(depth=2), ridge=0.1),
    methods=default_methods(("map", "laplace")),
    baselines=False,
)
STUDIES = grid(
    STUDY, data=("wine", "iris", "breast_cancer"), ridges=(0.01, 0.1, 1.0), seeds=(0, 1, 2)
)


def begun(folder: Path) -> dict[str, list[int]]:
    """Processes that started each study, in order."""
    processes = {}
    for name in STUDIES:
        log = study_folder(folder, name) / "attempts.log"
        lines = log.read_text().splitlines() if log.is_file() else []
        processes[name] = [int(line.split()[-1]) for line in lines]
    return processes


def is_finished(folder: Path, name: str) -> bool:
    return (study_folder(folder, name) / "report.html").is_file()


def kill_one(folder: Path, killed: list[tuple[int, str, int]]) -> None:
    """Wait until half of the studies are finished, then kill a worker in the middle of another."""
    while True:
        time.sleep(0.1)
        done = [name for name in STUDIES if is_finished(folder, name)]
        if len(done) < len(STUDIES) // 2:
            continue
        for name, processes in begun(folder).items():
            if processes and name not in done:
                os.kill(processes[-1], signal.SIGKILL)
                killed.append((processes[-1], name, len(done)))
                return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=None, help="an empty folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.out or Path(temporary)
        killed: list[tuple[int, str, int]] = []
        threading.Thread(target=kill_one, args=(folder, killed), daemon=True).start()
        start = time.perf_counter()
        result = Sweep(STUDIES).run(folder, num_workers=options.workers, progress=True)
        seconds = time.perf_counter() - start
        ((process, amid, done),) = killed
        attempts = {name: len(processes) for name, processes in begun(folder).items()}
        by_it = [n for n, processes in begun(folder).items() if process in processes and n != amid]

        print(f"process {process} killed amid '{amid}', after {done} studies were finished")
        for name, count in attempts.items():
            print(f"  {name:35s} begun {count} time(s)")
        print(
            f"{len(STUDIES)} studies: {sum(is_finished(folder, n) for n in STUDIES)} finished, "
            f"{len(result.failures)} failed, {len(result.table)} rows, {seconds:.0f} s"
        )
        print(f"begun more than once: {[name for name, count in attempts.items() if count > 1]}")
        print(f"finished by the killed process before, and kept: {len(by_it)}")
        start = time.perf_counter()
        again = Sweep(STUDIES).run(folder)
        same = again.table.equals(result.table)
        unchanged = attempts == {name: len(processes) for name, processes in begun(folder).items()}
        print(
            f"run again: {time.perf_counter() - start:.2f} s; "
            f"nothing begun: {unchanged}; same table: {same}"
        )


if __name__ == "__main__":
    main()
