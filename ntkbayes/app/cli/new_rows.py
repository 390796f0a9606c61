"""The command that predicts rows without labels."""

from pathlib import Path
from typing import Annotated

import typer

from ntkbayes.app.cli import terminal
from ntkbayes.app.cli.application import app
from ntkbayes.app.cli.interruption import interruptible
from ntkbayes.app.cli.options import CacheOption, Command, JsonOption, QuietOption, start_jax


@app.command(cls=Command, epilog="Example: ntkbayes predict runs/my --data new.csv --law laplace")
def predict(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(help="Folder that `ntkbayes compare` wrote.")],
    data: Annotated[
        Path,
        typer.Option(
            help="File of rows, with the columns of the training data in any order: .csv, .tsv or "
            ".parquet. A column of labels is passed over."
        ),
    ],
    law: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Law that predicts, by its name in the table; the reference of the comparison if not "
            "given.",
        ),
    ] = None,
    drop: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN",
            help="Column that was not trained on, to be passed over. Once for each, or several between "
            "commas. What was dropped in training is passed over without it.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="CSV file of the predictions; FOLDER/predictions/NAME.csv if not given, by the name of "
            "the data."
        ),
    ] = None,
    cache: CacheOption = True,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Predict the targets of new rows by a law that `compare` fitted.

    Rows go through what was done to the training table: categories, missing values, scale. For each
    there is the most probable class, the probability of every class, the entropy of the prediction and
    the epistemic part of it, in nats. Of real targets and counts there are mean, median, 90% interval,
    standard deviation and the epistemic part of it, in the unit of the target.
    """
    from ntkbayes.files import make_folder, require_file, write_text

    if data.suffix:
        require_file(data)
    start_jax(context)

    from ntkbayes.app.new_rows import predict_rows

    with interruptible(), terminal.announce("predictions"):
        predictions = predict_rows(folder, data, law=law, drop=drop or ())
    if predictions.ignored:
        names = ", ".join(map(repr, predictions.ignored))
        terminal.tell(f"{data}: passed over, since no law was trained on it: {names}")
    path = out or folder / "predictions" / f"{data.stem}.csv"
    make_folder(path.parent)
    write_text(path, predictions.to_csv())
    records = predictions.records()
    terminal.conclude(
        context,
        lambda: terminal.print_predictions(predictions.law, records),
        {"law": predictions.law, "ignored": predictions.ignored, "predictions": records},
        predictions=path,
    )
