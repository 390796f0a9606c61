"""The commands and their options. An option that would be ignored is an error."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from ntkbayes.app.cli import terminal
from ntkbayes.app.cli.application import app
from ntkbayes.app.cli.data import (
    TableOptions,
    folder_name,
    load_data,
    load_test,
    require_likelihood,
    require_order,
    require_tables,
    targets_of,
)
from ntkbayes.app.cli.interruption import interruptible
from ntkbayes.app.cli.options import (
    DATA_HELP,
    RIDGE_HELP,
    SEED_HELP,
    ActivationOption,
    BaselinesOption,
    BiasStdOption,
    CacheOption,
    CategoricalOption,
    Command,
    ConfigOption,
    DepthOption,
    DrawsOption,
    DropOption,
    FoldsOption,
    ImputeOption,
    JsonOption,
    LawsOption,
    LikelihoodOption,
    MaxMinutesOption,
    MissingOption,
    ModelOption,
    QuietOption,
    RidgeOption,
    RopeOption,
    SmoothingOption,
    SplitsOption,
    TargetOption,
    TemperatureOption,
    TestOption,
    TestShareOption,
    TrainSizeOption,
    WeightStdOption,
    command_line,
    complete_data,
    max_seconds_of,
    methods_of,
    options_file,
    require_only,
    splitting_of,
    start_jax,
    unused,
)
from ntkbayes.errors import ConfigurationError

_RUNS = Path("runs")


@app.command(cls=Command, epilog="Example: ntkbayes compare --data my.csv --target species")
def compare(
    context: typer.Context,
    data: Annotated[
        str | None,
        typer.Option(help=DATA_HELP, autocompletion=complete_data),
    ] = None,
    target: TargetOption = None,
    likelihood: LikelihoodOption = None,
    drop: DropOption = None,
    categorical: CategoricalOption = None,
    impute: ImputeOption = None,
    missing: MissingOption = None,
    model: ModelOption = None,
    depth: DepthOption = 2,
    activation: ActivationOption = "relu",
    weight_std: WeightStdOption = 1.5,
    bias_std: BiasStdOption = 0.1,
    ridge: RidgeOption = "evidence",
    temperature: TemperatureOption = 1.0,
    smoothing: SmoothingOption = 0.0,
    laws: LawsOption = "map,random-init,first-order,laplace,nuts",
    draws: DrawsOption = 1000,
    max_minutes: MaxMinutesOption = 10.0,
    seed: Annotated[int, typer.Option(help=SEED_HELP)] = 0,
    test: TestOption = None,
    test_share: TestShareOption = 0.25,
    splits: SplitsOption = None,
    folds: FoldsOption = None,
    train_size: TrainSizeOption = None,
    baselines: BaselinesOption = True,
    cache: CacheOption = True,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for report.html, comparison.csv and the laws; runs/NAME if not given, by "
            "the name of the data or of the model file, and over splits runs/NAME-splits or "
            "runs/NAME-5-folds."
        ),
    ] = None,
    config: ConfigOption = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Compare laws on held-out points, and write a report.

    Fits laws of trained networks to the training points. Targets are classes; with --likelihood also
    real numbers, counts or ordered classes. With both --data and --model, the study of the model file is
    run on the data: your network on your images, say.

    An interrupted run resumes from the laws already finished.
    """
    if data is None and model is None:
        raise ConfigurationError(
            "give --data NAME, --model FILE, or both for the model on these data; got neither"
        )
    beside_model = ("out", "model", "splits", "folds", "cache")
    if model is not None:
        of_data = () if data is None else ("data", *TableOptions._fields, "test")
        require_only(context, *beside_model, *of_data)
        from ntkbayes.files import require_file

        require_file(model)
    if data is not None:
        targets = require_likelihood(likelihood, data)
        require_tables([data], TableOptions.of(context), test)
    start_jax(context)

    import jax

    from ntkbayes import networks
    from ntkbayes.app.budget import left_out_of
    from ntkbayes.app.model_file import from_file
    from ntkbayes.app.ridges import ridge_of, with_ridge
    from ntkbayes.app.splits import SplitStudy
    from ntkbayes.app.study import Study
    from ntkbayes.priors.prior import NTKPrior
    from ntkbayes.repeated import SplitComparison
    from ntkbayes.selection.likelihood_rules import RULES as LIKELIHOODS

    splitting = splitting_of(context, test)
    apart = "-splits" * (splits is not None) + f"-{folds}-folds" * (folds is not None)
    names = [folder_name(str(each)) for each in (model, data) if each is not None]
    out = out or _RUNS / f"{'-'.join(names)}{apart}"
    asked, table = ridge_of(ridge), TableOptions.of(context)
    if model is not None:
        study = from_file(model)
        leave_out = tuple({*context.params} - {*beside_model, *of_data})
        if data is not None:
            (points,) = load_data([data], table, targets=targets_of(study.data))
            study = replace(study, data=points, test=load_test(test, table, points, context))
    else:
        (points,) = load_data([str(data)], table, targets=targets)
        require_order(points, likelihood)
        if train_size is not None:
            points = points.subset(jax.random.key(seed), train_size)
        tested = load_test(test, table, points, context)
        network = networks.mlp(
            depth=depth, activation=activation, weight_std=weight_std, bias_std=bias_std
        )
        prior, rule = with_ridge(NTKPrior(network, ridge=1.0), asked)
        study = Study(
            data=points,
            test=tested,
            prior=prior,
            ridge=rule,
            likelihood=LIKELIHOODS[likelihood]() if likelihood is not None else None,
            methods=methods_of(context, laws, draws),
            max_seconds=max_seconds_of(context, max_minutes),
            smoothing=smoothing,
            temperature=temperature,
            test_share=test_share,
            baselines=baselines,
            seed=seed,
        )
        without_share = ("test_share",) if test is not None or folds is not None else ()
        leave_out = (*unused(study.methods), *without_share)
    with interruptible():
        comparison = (study if splitting is None else SplitStudy(study, splitting)).run(
            out,
            command=command_line(),
            files=options_file(context, leave_out),
            announce=terminal.announce,
            progress=terminal.shows_progress(),
        )
    if isinstance(comparison, SplitComparison):
        _conclude_splits(context, comparison, out)
        return
    terminal.conclude(
        context,
        lambda: terminal.print_comparison(comparison),
        {
            "ridge": comparison.settings["ridge"],
            "reference": comparison.reference,
            "left out": left_out_of(comparison.settings),
            "table": terminal.records(comparison.table()),
        },
        report=out / "report.html",
    )


def _conclude_splits(context: typer.Context, comparison, out: Path) -> None:  # type: ignore[no-untyped-def]
    """Print what came out over splits."""
    terminal.conclude(
        context,
        lambda: terminal.print_splits(comparison),
        {
            "splits": list(comparison.splits),
            "reference": comparison.reference,
            "best": comparison.best,
            "unfinished": comparison.settings.get("unfinished", []),
            "table": terminal.records(comparison.table()),
        },
        report=out / "report.html",
    )


@app.command(
    cls=Command,
    epilog="Example: ntkbayes sweep --data wine --data iris --ridge 0.01 --ridge 0.1 "
    "--seed 0 --seed 1 --laws map,laplace",
)
def sweep(
    context: typer.Context,
    data: Annotated[
        list[str],
        typer.Option(help=f"{DATA_HELP} Once for each data set.", autocompletion=complete_data),
    ],
    target: TargetOption = None,
    likelihood: LikelihoodOption = None,
    drop: DropOption = None,
    categorical: CategoricalOption = None,
    impute: ImputeOption = None,
    missing: MissingOption = None,
    depth: DepthOption = 2,
    activation: ActivationOption = "relu",
    weight_std: WeightStdOption = 1.5,
    bias_std: BiasStdOption = 0.1,
    ridge: Annotated[
        list[str] | None,
        typer.Option(
            metavar="evidence|cv|NUMBER",
            help=f"{RIDGE_HELP} Once for each; evidence if not given.",
        ),
    ] = None,
    temperature: TemperatureOption = 1.0,
    smoothing: SmoothingOption = 0.0,
    laws: LawsOption = "map,random-init,first-order,laplace,nuts",
    draws: DrawsOption = 1000,
    max_minutes: MaxMinutesOption = 10.0,
    seed: Annotated[
        list[int] | None, typer.Option(help=f"{SEED_HELP} Once for each; 0 if not given.")
    ] = None,
    test_share: TestShareOption = 0.25,
    baselines: BaselinesOption = True,
    cache: CacheOption = True,
    workers: Annotated[
        int | None, typer.Option(help="Processes on this machine; one per core if not given.")
    ] = None,
    rope: RopeOption = 0.01,
    scheduler: Annotated[
        str | None,
        typer.Option(
            help="Address of a running Dask scheduler, whose workers do the work instead."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for sweep.csv and the studies.")] = _RUNS
    / "sweep",
    config: ConfigOption = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run `compare` for every data set, ridge and seed.

    Several studies run at a time. With --likelihood, the targets of all files are of that kind.

    Failed studies are reported, and the others continue. An interrupted sweep resumes from the studies
    already finished; a finished one takes further data sets, ridges and seeds.
    """
    if scheduler is not None and workers is not None:
        raise ConfigurationError(
            f"--workers {workers} are processes of this machine, but with --scheduler others do the "
            "work; leave out one of them"
        )
    table = TableOptions.of(context)
    targets = {require_likelihood(likelihood, each) for each in data}.pop()
    require_tables(data, table)
    start_jax(context)

    from ntkbayes import networks
    from ntkbayes.app.ridges import ridge_of
    from ntkbayes.app.study import Study
    from ntkbayes.app.sweep import Sweep, grid
    from ntkbayes.app.workers import connect
    from ntkbayes.priors.prior import NTKPrior
    from ntkbayes.selection.likelihood_rules import RULES as LIKELIHOODS

    network = networks.mlp(
        depth=depth, activation=activation, weight_std=weight_std, bias_std=bias_std
    )
    ridges = [ridge_of(each) for each in ridge or ("evidence",)]
    points = load_data(data, table, targets=targets)
    for each in points:
        require_order(each, likelihood)
    study = Study(
        data=points[0],
        prior=NTKPrior(network, ridge=1.0),
        likelihood=LIKELIHOODS[likelihood]() if likelihood is not None else None,
        methods=methods_of(context, laws, draws),
        max_seconds=max_seconds_of(context, max_minutes),
        smoothing=smoothing,
        temperature=temperature,
        test_share=test_share,
        baselines=baselines,
    )
    studies = Sweep(grid(study, data=points, ridges=ridges, seeds=seed or ()))
    with interruptible(), connect(scheduler) if scheduler else nullcontext() as client:
        result = studies.run(
            out,
            client=client,
            num_workers=workers,
            command=command_line(),
            files=options_file(context, unused(study.methods)),
            progress=not quiet,
            rope=rope,
        )
    _conclude_sweep(context, result, out)
    if result.failures:
        terminal.say(
            f"{len(result.failures)} of {len(studies.studies)} studies failed; the same command "
            "tries them again"
        )
        raise typer.Exit(1)


def _conclude_sweep(context: typer.Context, result, out: Path) -> None:  # type: ignore[no-untyped-def]
    """Print what became of a sweep."""
    for failure in result.failures:
        terminal.say(f"failed: {failure}", style="red")
    terminal.conclude(
        context,
        lambda: terminal.print_sweep(result),
        {
            "table": terminal.records(result.table),
            "failures": list(map(str, result.failures)),
            "over_data_sets": {
                ridge: terminal.records(each.table())
                for ridge, each in result.over_data_sets.items()
            },
        },
        table=out / "sweep.csv",
        report=out / "report.html",
    )


@app.command(cls=Command, epilog="Example: ntkbayes report runs/mine")
def report(
    context: typer.Context,
    folder: Annotated[
        Path, typer.Argument(help="Folder that `ntkbayes compare` or `sweep` wrote.")
    ],
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Build the report of a comparison again, from its files.

    Also that over splits, or of a sweep. Of a run that was interrupted it has the laws that are
    finished, and names those that are missing.
    """
    start_jax(context)

    from ntkbayes import storage
    from ntkbayes.app import report as report_module
    from ntkbayes.app import sweep as sweeps
    from ntkbayes.app.splits import holds_splits, write_report

    if sweeps.holds_sweep(folder):
        with terminal.announce("report"):
            result = sweeps.write_report(folder)
        _conclude_sweep(context, result, folder)
        return
    if holds_splits(folder):
        with terminal.announce("report"):
            over_splits = write_report(folder)
        if told := report_module.unfinished(over_splits.settings):
            terminal.say(told)
        _conclude_splits(context, over_splits, folder)
        return
    with terminal.announce("report"):
        comparison = storage.load_so_far(folder)
        path = report_module.write(comparison, folder)
    if told := report_module.unfinished(comparison.settings):
        terminal.say(told)
    missing = comparison.settings.get("unfinished", [])
    terminal.conclude(context, lambda: None, {"unfinished": missing}, report=path)
