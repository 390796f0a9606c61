"""Options that several commands have, and what is made of their values."""

import math
import os
import shlex
import sys
from collections.abc import Collection
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from ntkbayes.app import compilation_cache
from ntkbayes.app.cli import configuration, terminal
from ntkbayes.errors import ConfigurationError

# Written here, since the modules that define them import JAX.
DATA_NAMES = ("breast_cancer", "wine", "iris", "digits", "moons")
ACTIVATION_NAMES = ("relu", "leaky_relu", "erf", "gelu", "identity", "tanh", "silu", "sin")
LAW_NAMES = (
    *("map", "random-init", "first-order", "laplace", "pruned-laplace", "nuts", "split-hmc"),
    *("perturbed-init", "variational", "mean-field", "ep", "dirichlet"),
)

LIKELIHOOD_NAMES = ("normal", "poisson", "ordinal")


def complete_data(incomplete: str) -> list[str]:
    """Names of data sets, and files, that begin so."""
    files = (f"{path}/" * path.is_dir() or str(path) for path in Path().glob(f"{incomplete}*"))
    return [name for name in DATA_NAMES if name.startswith(incomplete)] + sorted(files)


def _complete_activation(incomplete: str) -> list[str]:
    return [name for name in ACTIVATION_NAMES if name.startswith(incomplete)]


def _complete_laws(incomplete: str) -> list[str]:
    """The last of several names between commas."""
    *before, last = incomplete.split(",")
    left = (name for name in LAW_NAMES if name.startswith(last) and name not in before)
    return [",".join([*before, name]) for name in left]


DATA_HELP = (
    f"{', '.join(DATA_NAMES)}, a file (.csv, .tsv, .parquet, .npz or "
    ".npy), a folder with a sub-folder of images for each class, or openml:NUMBER."
)
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        help="A TOML file of options, such as the options.toml that every run leaves in its folder. "
        "Options on the command line go before it."
    ),
]
QuietOption = Annotated[
    bool,
    typer.Option(
        "--quiet", "-q", help="Print no progress and no table: only where the results are."
    ),
]
JsonOption = Annotated[
    bool,
    typer.Option(
        "--json",
        help="Print the table and the paths of the results as one JSON object, on standard output.",
    ),
]
TargetOption = Annotated[
    str | None,
    typer.Option(
        help="Column of the labels or numbers, for a file; in .npz the array, y if not given."
    ),
]
LikelihoodOption = Annotated[
    str | None,
    typer.Option(
        metavar="|".join(LIKELIHOOD_NAMES),
        help="For a file whose targets are no classes, or ordered ones. normal: real numbers, with "
        "noise that maximises the evidence. poisson: counts. ordinal: numbered classes, in order. "
        "Noise, mean rate and cutpoints are chosen from the training points alone.",
        autocompletion=lambda incomplete: [n for n in LIKELIHOOD_NAMES if n.startswith(incomplete)],
    ),
]
DropOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="COLUMN",
        help="Column of a file to leave out, such as an identifier. Once for each, or several between "
        "commas.",
    ),
]
CategoricalOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="COLUMN",
        help="Column of a file whose values are categories, such as codes. Once for each, or several "
        "between commas. Columns of words are known without it.",
    ),
]
ImputeOption = Annotated[
    str | None,
    typer.Option(
        metavar="median|mean|most-frequent",
        help="What stands for missing numbers of a file, learnt from the training points; for missing "
        "categories it is the most frequent. If not given, missing values are an error.",
    ),
]
MissingOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="WORD",
        help="Word that stands for a missing value in a file, such as NA. Once for each. Empty fields "
        "are missing without it.",
    ),
]
DepthOption = Annotated[int, typer.Option(help="Hidden layers.")]
WeightStdOption = Annotated[float, typer.Option(help="Standard deviation of the weights.")]
BiasStdOption = Annotated[float, typer.Option(help="Standard deviation of the biases.")]
ActivationOption = Annotated[
    str,
    typer.Option(
        help=f"{', '.join(ACTIVATION_NAMES[:-1])} or {ACTIVATION_NAMES[-1]}.",
        autocompletion=_complete_activation,
    ),
]
RIDGE_HELP = (
    "Weight of ½‖θ − θ0‖² against the summed loss: a number, or how it is chosen from the training "
    "points alone. evidence: where the log evidence is largest, by about ten fits of Laplace. cv: where "
    "the NLL of MAP is lowest in 5-fold cross-validation."
)
TemperatureOption = Annotated[
    float,
    typer.Option(
        help="T, by which every fit divides the log likelihood: tempered posteriors, cold below 1. The "
        "ridge is chosen at 1, and predictions are at 1."
    ),
]
SEED_HELP = "Of the split, the draws and the bootstrap."
SmoothingOption = Annotated[
    float, typer.Option(help="Label smoothing of the training targets, 0 to 1.")
]
LawsOption = Annotated[
    str,
    typer.Option(
        help="Comma-separated, of: map, random-init, first-order, laplace, pruned-laplace, "
        "nuts, split-hmc, perturbed-init, variational, mean-field, ep (two classes), dirichlet.",
        autocompletion=_complete_laws,
    ),
]
DrawsOption = Annotated[
    int,
    typer.Option(help="Initialisations of each law that trains them; draws per chain of samplers."),
]
MaxMinutesOption = Annotated[
    float,
    typer.Option(
        help="What the laws together may take, as predicted. The longest are left out until the others "
        "stay below. No law is that is named by --laws, unless this is given as well."
    ),
]
RidgeOption = Annotated[str, typer.Option(metavar="evidence|cv|NUMBER", help=RIDGE_HELP)]
ModelOption = Annotated[
    Path | None,
    typer.Option(
        help="A Python file that defines `study`, like those in models/; with --data, the study is run "
        "on those data."
    ),
]
TrainSizeOption = Annotated[
    int | None, typer.Option(help="Use only this many of the points, chosen by class.")
]
TestOption = Annotated[
    Path | None,
    typer.Option(
        help="File of test points like that of the data; a share of the data is held out if not given."
    ),
]
TestShareOption = Annotated[float, typer.Option(help="Part of the data held out.")]
SplitsOption = Annotated[
    int | None,
    typer.Option(
        help="Compare over this many random splits, those of --seed and the seeds after it: mean scores "
        "with errors over splits, in one report."
    ),
]
FoldsOption = Annotated[
    int | None,
    typer.Option(
        help="Compare over the folds of cross-validation with this many, as --splits does."
    ),
]
RopeOption = Annotated[
    float,
    typer.Option(
        help="Differences in NLL up to this size count as none, in nats per point, where laws are "
        "compared over several data sets."
    ),
]
BaselinesOption = Annotated[
    bool, typer.Option(help="Take in the base rate and models of scikit-learn.")
]
CacheOption = Annotated[
    bool,
    typer.Option(
        help="Keep compiled programs for later runs, and use those of earlier ones; see ntkbayes --help."
    ),
]


# With these a study's programs run as fast as with XLA's defaults: level 3 takes half as long again to
# compile, and so do the fusion emitters, which later versions of jaxlib do not let one switch off.
_COMPILER = {"xla_backend_optimization_level": "1"}
if version("jaxlib").startswith("0.10."):
    _COMPILER["xla_cpu_use_fusion_emitters"] = "false"


class Command(TyperCommand):
    """A command that refuses an option given twice, and reads a configuration file."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Raises ConfigurationError for an option given twice, of which only one could count, or what
        `configuration.read` does."""
        given, _, order = self.make_parser(ctx).parse_args(args=list(args))
        for option in order:
            if order.count(option) > 1 and not (option.multiple or option.is_eager):
                raise ConfigurationError(f"{option.opts[0]} is given twice; give it once")
        if file := given.get("config"):
            ctx.default_map = configuration.read(Path(str(file)), ctx, self.params)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        if ctx.params.get("quiet"):
            terminal.be_quiet()
        return super().invoke(ctx)

    def get_help(self, ctx: Any) -> str:
        """The help in letters that the terminal has; typer takes every terminal for one of UTF-8."""
        return terminal.legible(super().get_help(ctx))


def start_jax(context: typer.Context) -> None:
    """Set JAX up, for the rest of a command; what can be refused without it has been, for importing it
    takes longer than that.

    Raises:
        ConfigurationError: JAX has no device to work with.
    """
    if not context.params.get("cache", True):
        os.environ[compilation_cache.VARIABLE] = "off"  # also for the workers of a sweep
    # JAX's switches are this process's own here; the library never touches them.
    given = os.environ.get("XLA_FLAGS", "")
    ours = [f"--{name}={value}" for name, value in _COMPILER.items() if name not in given]
    os.environ["XLA_FLAGS"] = " ".join([*ours, given])
    import jax

    jax.config.update("jax_enable_x64", True)
    try:
        jax.devices()
    except Exception as error:  # JAX fails in several ways
        chosen = os.environ.get("JAX_PLATFORMS")
        cause = f" of JAX_PLATFORMS={chosen}; leave that unset, or set it to cpu" if chosen else ""
        told = str(error) or type(error).__name__
        raise ConfigurationError(f"JAX finds no device{cause} ({told})") from error
    context.with_resource(compilation_cache.kept(compilation_cache.chosen_folder()))


def options_file(context: typer.Context, leave_out: Collection[str] = ()) -> dict[str, str]:
    """The configuration file for the folder of a run, by its name; see `configuration.written`."""
    return {configuration.NAME: configuration.written(context, leave_out=leave_out)}


def command_line() -> str:
    return shlex.join(["ntkbayes", *sys.argv[1:]])


def _names(words: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in words.split(",") if name.strip())


def whole_numbers(option: str, words: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in words.split(",") if word.strip())
    except ValueError:
        raise ConfigurationError(
            f"{option} takes whole numbers between commas, such as 64,256; got {words!r}"
        ) from None


def given(context: typer.Context, name: str) -> bool:
    """Whether an option is on the command line, or in the configuration file."""
    source = getattr(context.get_parameter_source(name), "name", "")
    return source in ("COMMANDLINE", "DEFAULT_MAP")


def splitting_of(context: typer.Context, test: Path | None):  # type: ignore[no-untyped-def]
    """How the data are split several times, by --splits or --folds; None if they are split once.

    Raises:
        ConfigurationError: both are given, or along with an option that goes with one split.
    """
    from ntkbayes.app.splits import KFold, Splits

    asked = {name: context.params[name] for name in ("splits", "folds")}
    splitting = {name: number for name, number in asked.items() if number is not None}
    if not splitting:
        return None
    if len(splitting) == 2:
        raise ConfigurationError("--splits are random and --folds are not; leave out one of them")
    (name, number), *_ = splitting.items()
    if test is not None:
        raise ConfigurationError(
            f"--test {test} has the test points, so that the data are not split; leave out --{name}"
        )
    if name == "folds" and given(context, "test_share"):
        raise ConfigurationError("each fold is held out once; leave out --test-share, or --folds")
    return Splits(number) if name == "splits" else KFold(number)


def require_only(context: typer.Context, *names: str) -> None:
    """Raises ConfigurationError if any other option was given, but for those of printing."""
    names = (*names, "config", "quiet", "as_json")
    others = [
        "--" + name.replace("_", "-")
        for name in context.params
        if name not in names and given(context, name)
    ]
    if others:
        raise ConfigurationError(
            f"a model file has its own settings: change them there, and leave out {', '.join(others)}"
        )


def methods_of(context: typer.Context, laws: str, draws: int):  # type: ignore[no-untyped-def]
    """Raises ConfigurationError for draws that no law makes."""
    from ntkbayes.app.methods import default_methods

    methods = default_methods(_names(laws), num_draws=draws)
    if given(context, "draws") and unused(methods):
        raise ConfigurationError(
            f"--draws {draws} is for laws that draw, and of --laws {laws} none does; leave it out"
        )
    return methods


def max_seconds_of(context: typer.Context, max_minutes: float) -> float:
    """Without bound for laws that were asked for by name.

    Raises:
        ConfigurationError: it is not positive.
    """
    from ntkbayes.ranges import Range, real

    real("--max-minutes", max_minutes, Range.POSITIVE)
    is_asked_for = given(context, "laws") and not given(context, "max_minutes")
    return math.inf if is_asked_for else 60 * max_minutes


def unused(methods) -> tuple[str, ...]:  # type: ignore[no-untyped-def]
    """The options that these laws have no use for."""
    numbers = ("num_inits", "num_samples")
    is_drawn = any(hasattr(each, number) for each in methods.values() for number in numbers)
    return () if is_drawn else ("draws",)
