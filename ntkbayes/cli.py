"""The command line: `ntkbayes compare`, `ntkbayes sweep`, `ntkbayes report`, `ntkbayes lazy`."""

import math
import os
import shlex
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from ntkbayes.errors import ConfigurationError, NTKBayesError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="The Neural Tangent Kernel as a Bayesian object: compare laws of trained classifiers.",
    epilog="Example: ntkbayes compare --data iris",
)
console = Console(stderr=True)

_RUNS = Path("runs")
_DATA_HELP = "breast_cancer, wine, iris, digits, moons, or a file: .csv, .tsv or .parquet."
TargetOption = Annotated[str | None, typer.Option(help="Column of the labels, for a file.")]
DepthOption = Annotated[int, typer.Option(help="Hidden layers.")]
WeightStdOption = Annotated[float, typer.Option(help="Standard deviation of the weights.")]
BiasStdOption = Annotated[float, typer.Option(help="Standard deviation of the biases.")]
ActivationOption = Annotated[
    str, typer.Option(help="relu, leaky_relu, erf, gelu, identity, tanh, silu or sin.")
]
_RIDGE_HELP = "Weight of ½‖θ − θ0‖² against the summed loss."
_SEED_HELP = "Of the split, the draws and the bootstrap."
SmoothingOption = Annotated[
    float, typer.Option(help="Label smoothing of the training targets, 0 to 1.")
]
LawsOption = Annotated[
    str,
    typer.Option(
        help="Comma-separated, of: map, random-init, first-order, laplace, pruned-laplace, "
        "nuts, split-hmc, perturbed-init, variational, mean-field, ep (two classes), dirichlet."
    ),
]
DrawsOption = Annotated[
    int,
    typer.Option(help="Initialisations of each law that trains them; draws a chain of samplers."),
]
TestShareOption = Annotated[float, typer.Option(help="Part of the data held out.")]
BaselinesOption = Annotated[bool, typer.Option(help="Take in scikit-learn's baselines.")]


def _say(message: str, style: str | None = None) -> None:
    """One line, whatever the width of the terminal, with names and numbers in it as they are."""
    console.print(message, style=style, highlight=False, markup=False, soft_wrap=True)


@app.callback()
def _setup() -> None:
    # JAX's switches are this process's own here; the library never touches them.
    import jax

    jax.config.update("jax_enable_x64", True)


@app.command(epilog="Example: ntkbayes compare --data my.csv --target species --ridge 0.1")
def compare(
    context: typer.Context,
    data: Annotated[
        str | None,
        typer.Option(help=_DATA_HELP),
    ] = None,
    target: TargetOption = None,
    model: Annotated[
        Path | None,
        typer.Option(help="A Python file that defines `study`, like those in models/."),
    ] = None,
    depth: DepthOption = 2,
    activation: ActivationOption = "relu",
    weight_std: WeightStdOption = 1.5,
    bias_std: BiasStdOption = 0.1,
    ridge: Annotated[float, typer.Option(help=_RIDGE_HELP)] = 0.1,
    smoothing: SmoothingOption = 0.0,
    laws: LawsOption = "map,random-init,first-order,laplace,nuts",
    draws: DrawsOption = 1000,
    seed: Annotated[int, typer.Option(help=_SEED_HELP)] = 0,
    test_share: TestShareOption = 0.25,
    train_size: Annotated[
        int | None, typer.Option(help="Use only this many of the points, chosen by class.")
    ] = None,
    baselines: BaselinesOption = True,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for report.html, comparison.csv and the laws; runs/NAME if not given, by "
            "the name of the data or of the model file."
        ),
    ] = None,
) -> None:
    """Fit laws of trained classifiers to data, compare them on held-out points, write a report.

    An interrupted run goes on from the laws already finished.
    """
    import jax

    from ntkbayes import networks
    from ntkbayes.prior import NTKPrior
    from ntkbayes.study import Study, default_methods, from_file

    if (data is None) == (model is None):
        given = "neither" if data is None else f"both --data {data} and --model {model}"
        raise ConfigurationError(f"give either --data NAME or --model FILE; got {given}")
    out = out or _RUNS / Path(data or str(model)).stem
    if model is not None:
        _require_only(context, "out", "model")
        study = from_file(model)
    else:
        points = _load(str(data), target)
        if train_size is not None:
            points = points.subset(jax.random.key(seed), train_size)
        network = networks.mlp(
            depth=depth, activation=activation, weight_std=weight_std, bias_std=bias_std
        )
        study = Study(
            data=points,
            prior=NTKPrior(network, ridge=ridge),
            methods=default_methods(_names(laws), num_draws=draws),
            smoothing=smoothing,
            test_share=test_share,
            baselines=baselines,
            seed=seed,
        )
    try:
        comparison = study.run(
            out,
            command=_command(),
            announce=_announce,
            progress=sys.stderr.isatty(),
        )
    except KeyboardInterrupt:
        _say(_STOPPED)
        raise typer.Exit(130) from None
    _print_table(comparison)
    print(f"report: {out / 'report.html'}")


@app.command(
    epilog="Example: ntkbayes sweep --data wine --data iris --ridge 0.01 --ridge 0.1 "
    "--seed 0 --seed 1 --laws map,laplace"
)
def sweep(
    data: Annotated[list[str], typer.Option(help=f"{_DATA_HELP} Once for each data set.")],
    target: TargetOption = None,
    depth: DepthOption = 2,
    activation: ActivationOption = "relu",
    weight_std: WeightStdOption = 1.5,
    bias_std: BiasStdOption = 0.1,
    ridge: Annotated[
        list[float] | None, typer.Option(help=f"{_RIDGE_HELP} Once for each; 0.1 if not given.")
    ] = None,
    smoothing: SmoothingOption = 0.0,
    laws: LawsOption = "map,random-init,first-order,laplace,nuts",
    draws: DrawsOption = 1000,
    seed: Annotated[
        list[int] | None, typer.Option(help=f"{_SEED_HELP} Once for each; 0 if not given.")
    ] = None,
    test_share: TestShareOption = 0.25,
    baselines: BaselinesOption = True,
    workers: Annotated[
        int | None, typer.Option(help="Processes on this machine; one a core if not given.")
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            help="Address of a running Dask scheduler, whose workers do the work instead."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for sweep.csv and the studies.")] = _RUNS
    / "sweep",
) -> None:
    """Run `compare` for every data set, ridge and seed, several at a time.

    Failed studies are reported, and the others go on. An interrupted sweep goes on from the studies
    already finished; a finished one takes further data sets, ridges and seeds.
    """
    from ntkbayes import networks
    from ntkbayes.prior import NTKPrior
    from ntkbayes.study import Study, default_methods
    from ntkbayes.sweep import Sweep, connect, grid

    network = networks.mlp(
        depth=depth, activation=activation, weight_std=weight_std, bias_std=bias_std
    )
    points = [_load(each, target) for each in data]
    study = Study(
        data=points[0],
        prior=NTKPrior(network, ridge=0.1),
        methods=default_methods(_names(laws), num_draws=draws),
        smoothing=smoothing,
        test_share=test_share,
        baselines=baselines,
    )
    studies = Sweep(grid(study, data=points, ridges=ridge or (), seeds=seed or ()))
    try:
        with connect(scheduler) if scheduler else nullcontext() as client:
            result = studies.run(
                out, client=client, num_workers=workers, command=_command(), progress=True
            )
    except KeyboardInterrupt:
        _say(_STOPPED)
        raise typer.Exit(130) from None
    _print_sweep(result.table)
    for failure in result.failures:
        _say(f"failed: {failure}", style="red")
    print(f"table: {out / 'sweep.csv'}")
    if result.failures:
        _say(
            f"{len(result.failures)} of {len(studies.studies)} studies failed; the same command "
            "tries them again"
        )
        raise typer.Exit(1)


@app.command(epilog="Example: ntkbayes report runs/mine")
def report(
    folder: Annotated[Path, typer.Argument(help="Folder that `ntkbayes compare` wrote.")],
) -> None:
    """Build the report of a finished comparison again, from its files."""
    from ntkbayes import report as report_module
    from ntkbayes import storage

    with _announce("report"):
        path = report_module.write(storage.load(folder), folder)
    print(f"report: {path}")


@app.command(epilog="Example: ntkbayes lazy --data breast_cancer --ridge 0.1 --widths 64,256")
def lazy(
    data: Annotated[
        str,
        typer.Option(help=_DATA_HELP),
    ],
    target: TargetOption = None,
    widths: Annotated[
        str, typer.Option(help="Comma-separated hidden units of the networks, at least two.")
    ] = "64,128,256,512",
    seeds: Annotated[int, typer.Option(help="Networks of each width.")] = 3,
    steps: Annotated[int, typer.Option(help="Full-batch gradient steps.")] = 12_000,
    ridge: Annotated[
        float, typer.Option(help="Weight of ½‖θ − θ0‖² against the summed loss, set against none.")
    ] = 0.1,
    smoothing: Annotated[
        float, typer.Option(help="Label smoothing of the training targets, set against none.")
    ] = 0.2,
    depth: DepthOption = 2,
    activation: ActivationOption = "relu",
    weight_std: WeightStdOption = 1.5,
    bias_std: BiasStdOption = 0.1,
    max_points: Annotated[
        int, typer.Option(help="Use at most this many of the points, chosen by class.")
    ] = 40,
    test_share: Annotated[float, typer.Option(help="Part of the points held out.")] = 0.25,
    seed: Annotated[int, typer.Option(help="Of points, split and initialisations.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for lazy.csv, lazy.json and the figure; runs/NAME-lazy if not given, by the "
            "name of the data."
        ),
    ] = None,
) -> None:
    """Train real networks of several widths, and say where the kernel view of them holds.

    Four regimes: with and without ridge, on one-hot and on smoothed targets. Each network is
    compared with its linearisation, trained by the same steps. An interrupted run goes on from the
    networks already trained.
    """
    from ntkbayes import networks
    from ntkbayes.lazy.study import LazyStudy, four_regimes

    out = out or _RUNS / f"{Path(data).stem}-lazy"

    def family(width: int, num_outputs: int) -> networks.Network:
        return networks.mlp(
            depth=depth,
            activation=activation,
            weight_std=weight_std,
            bias_std=bias_std,
            width=width,
            num_outputs=num_outputs,
        )

    study = LazyStudy(
        data=_load(data, target),
        family=family,
        widths=_whole_numbers("--widths", widths),
        regimes=four_regimes(ridge=ridge, smoothing=smoothing),
        num_seeds=seeds,
        num_steps=steps,
        max_points=max_points,
        test_share=test_share,
        seed=seed,
    )
    try:
        result = study.run(out, command=_command(), announce=_announce)
    except KeyboardInterrupt:
        _say(_STOPPED)
        raise typer.Exit(130) from None
    _print_verdicts(result)
    print(f"figure: {out / 'lazy.png'}")


def _command() -> str:
    return shlex.join(["ntkbayes", *sys.argv[1:]])


def _names(words: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in words.split(",") if name.strip())


def _whole_numbers(option: str, words: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in words.split(",") if word.strip())
    except ValueError:
        raise ConfigurationError(
            f"{option} takes whole numbers between commas, such as 64,256; got {words!r}"
        ) from None


def _require_only(context: typer.Context, *names: str) -> None:
    """Raises ConfigurationError if the command line gave any other option."""
    others = [
        "--" + name.replace("_", "-")
        for name in context.params
        if name not in names
        and getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"
    ]
    if others:
        raise ConfigurationError(
            f"a model file has its own settings: change them there, and leave out {', '.join(others)}"
        )


def _load(data: str, target: str | None):  # type: ignore[no-untyped-def]
    from ntkbayes import datasets

    if data in datasets.NAMES:
        return datasets.load(data)
    if Path(data).suffix or Path(data).exists():
        if target is None:
            raise ConfigurationError(f"name the column of the labels in {data} with --target")
        return datasets.read_table(data, target=target)
    return datasets.load(data)  # raises, and names the data sets there are


@contextmanager
def _announce(what: str) -> Iterator[None]:
    begin = time.perf_counter()
    if console.is_terminal and what != "NUTS":  # NUTS shows NumPyro's own bar
        with console.status(f"{what} …"):
            yield
    else:
        _say(f"{what} …")
        yield
    if (took := time.perf_counter() - begin) >= 0.05:
        _say(f"{what}: {took:.1f} s")
    elif console.is_terminal:
        _say(what)


def _print_table(comparison) -> None:  # type: ignore[no-untyped-def]
    columns = [
        "law",
        "accuracy",
        "NLL (nats)",
        "Brier",
        "ECE",
        f"variance / {comparison.reference}",
    ]
    table = Table()
    for column in columns:
        table.add_column(column, no_wrap=column == "law")
    for name, scores in comparison.scores.items():
        ratio = comparison.distances[name].get("variance_ratio")
        table.add_row(
            name,
            *(f"{scores[score].value:.3f}" for score in ("accuracy", "nll", "brier", "ece")),
            f"{ratio.value:.3f}" if ratio and math.isfinite(ratio.value) else "",
        )
    Console().print(table)


def _print_sweep(frame) -> None:  # type: ignore[no-untyped-def]
    """Means over seeds."""
    table = Table()
    for column in ("data", "ridge", "law", "studies", "accuracy", "NLL (nats)", "Brier", "ECE"):
        table.add_column(column, no_wrap=column == "law")
    scores = ["accuracy", "nll", "brier", "ece"]
    done = frame[frame["error"] == ""]
    for (data, ridge, law), group in done.groupby(["data", "ridge", "law"], sort=False):
        means = (f"{group[score].mean():.3f}" for score in scores)
        table.add_row(data, f"{ridge:g}", law, str(len(group)), *means)
    Console().print(table)


def _print_verdicts(result) -> None:  # type: ignore[no-untyped-def]
    table = Table()
    # Words of few letters, so that the table fits into 80 columns; the sentences below say the rest.
    columns = (
        "regime",
        "verdict",
        "drift slope",
        "gap slope",
        "drift growth",
        "logit growth",
        "within",
    )
    for column in columns:
        table.add_column(column, no_wrap=column == "verdict")
    for v in result.verdicts:
        table.add_row(
            str(v.regime),
            str(v.finding),
            *(f"{law.exponent:.2f}" for law in (v.drift, v.gap)),
            *(f"×{growth:.2f}" for growth in (v.drift_growth, v.logit_growth)),
            f"{v.trusted_within:.2g}",
        )
    Console().print(table)
    for v in result.verdicts:
        print(v)


_STOPPED = "stopped; the same command goes on from what is already finished"
_GRACE = 3.0  # seconds


@contextmanager
def _stopping_at_once() -> Iterator[None]:
    """Let Ctrl-C end the process even while compiled code runs, which Python does not interrupt:
    a thread sees the signal at once, and waits for Python's own way of stopping no longer than
    `_GRACE`. Files are moved to their places when whole, so none is left broken."""
    seen, signalled = os.pipe()
    os.set_blocking(signalled, False)
    before = signal.set_wakeup_fd(signalled)

    def watch() -> None:
        while number := os.read(seen, 1):
            if number[0] == signal.SIGINT:
                time.sleep(_GRACE)
                console.show_cursor(True)
                _say(_STOPPED)
                os._exit(130)
        os.close(seen)

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(signalled)


def main() -> None:
    """Entry point: errors are messages, not tracebacks."""
    warnings.showwarning = lambda message, *_args, **_kwargs: _say(
        f"warning: {message}", style="yellow"
    )
    try:
        with _stopping_at_once():
            app()
    except NTKBayesError as error:
        _say(f"error: {error}", style="red")
        raise SystemExit(1) from None


def run() -> None:
    """`main` as a process of its own: one that was stopped amid a compilation ends without taking
    the interpreter down first, at which JAX's threads may crash."""
    try:
        main()
    except SystemExit as end:
        if end.code == 130:
            os._exit(130)
        raise
