"""The command that trains real networks of several widths."""

from pathlib import Path
from typing import Annotated

import typer

from ntkbayes.app.cli import terminal
from ntkbayes.app.cli.application import app
from ntkbayes.app.cli.data import (
    TableOptions,
    folder_name,
    load_data,
    require_likelihood,
    require_order,
    require_tables,
)
from ntkbayes.app.cli.interruption import interruptible
from ntkbayes.app.cli.options import (
    DATA_HELP,
    ActivationOption,
    BiasStdOption,
    CacheOption,
    CategoricalOption,
    Command,
    ConfigOption,
    DepthOption,
    DropOption,
    ImputeOption,
    JsonOption,
    LikelihoodOption,
    MissingOption,
    QuietOption,
    TargetOption,
    WeightStdOption,
    command_line,
    complete_data,
    given,
    options_file,
    start_jax,
    whole_numbers,
)
from ntkbayes.errors import ConfigurationError

_RUNS = Path("runs")


@app.command(
    cls=Command, epilog="Example: ntkbayes lazy --data breast_cancer --ridge 0.1 --widths 64,256"
)
def lazy(
    context: typer.Context,
    data: Annotated[
        str,
        typer.Option(help=DATA_HELP, autocompletion=complete_data),
    ],
    target: TargetOption = None,
    drop: DropOption = None,
    categorical: CategoricalOption = None,
    impute: ImputeOption = None,
    missing: MissingOption = None,
    widths: Annotated[
        str, typer.Option(help="Comma-separated hidden units of the networks, at least two.")
    ] = "64,128,256,512",
    seeds: Annotated[int, typer.Option(help="Networks of each width.")] = 3,
    steps: Annotated[int, typer.Option(help="Full-batch gradient steps.")] = 12_000,
    ridge: Annotated[
        float, typer.Option(help="Weight of ½‖θ − θ0‖² against the summed loss, set against none.")
    ] = 0.1,
    anchor: Annotated[
        str,
        typer.Option(
            metavar="init|zero",
            help="Where the ridge pulls: to the initialisation θ0, or to zero, which is weight decay.",
        ),
    ] = "init",
    shifted: Annotated[
        bool, typer.Option("--shifted", help="Subtract each network's initial function.")
    ] = False,
    likelihood: LikelihoodOption = None,
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
    cache: CacheOption = True,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for lazy.csv, lazy.json and the figure; runs/NAME-lazy if not given, by the "
            "name of the data."
        ),
    ] = None,
    config: ConfigOption = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Say where the kernel view of real networks holds.

    Trains networks of several widths in four regimes: with and without ridge, on targets as given and
    smoothed; with --likelihood two, since numbers and ordered classes are not smoothed. Each network is
    compared with its linearisation, trained by the same steps. An interrupted run resumes from the
    networks already trained.
    """
    sizes = whole_numbers("--widths", widths)
    table = TableOptions.of(context)
    targets = require_likelihood(likelihood, data)
    require_tables([data], table)
    if likelihood is not None and given(context, "smoothing"):
        raise ConfigurationError(
            f"--smoothing is for classes without order, not for --likelihood {likelihood}: leave it out"
        )
    start_jax(context)

    from ntkbayes import networks
    from ntkbayes.lazy.widths import LazyStudy, four_regimes, two_regimes
    from ntkbayes.selection.likelihood_rules import RULES as LIKELIHOODS

    if likelihood is None:
        regimes = four_regimes(ridge=ridge, smoothing=smoothing, anchor=anchor, shifted=shifted)
    else:
        regimes = two_regimes(ridge=ridge, anchor=anchor, shifted=shifted)
    (points,) = load_data([data], table, targets=targets)
    require_order(points, likelihood)

    out = out or _RUNS / f"{folder_name(data)}-lazy"

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
        data=points,
        family=family,
        widths=sizes,
        regimes=regimes,
        likelihood=LIKELIHOODS[likelihood]() if likelihood is not None else None,
        num_seeds=seeds,
        num_steps=steps,
        max_points=max_points,
        test_share=test_share,
        seed=seed,
    )
    with interruptible():
        result = study.run(
            out,
            command=command_line(),
            files=options_file(context),
            announce=terminal.announce,
        )
    terminal.conclude(
        context,
        lambda: terminal.print_verdicts(result),
        {
            "table": terminal.records(result.table()),
            "verdicts": list(map(str, result.verdicts)),
        },
        figure=out / "lazy.png",
    )
