"""Equal configurations are told alike, in every process; others are not; what cannot be told is said."""

import functools
import importlib.util
import json
import sys
import textwrap
from collections import OrderedDict
from pathlib import Path

import cloudpickle
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest

import ntkbayes as nb
from ntkbayes.app.model_file import from_file
from ntkbayes.bridges.equinox import from_equinox
from ntkbayes.bridges.flax import from_linen, from_nnx
from ntkbayes.description import describe, unidentified
from ntkbayes.errors import ConfigurationError

MODELS = Path(__file__).parents[1] / "models"
BEFORE = """
    import functools
    import math

    import jax
    import jax.numpy as jnp
    import numpy as np
    import ntkbayes as nb
    from ntkbayes.kernels import Kernel, KernelPair

    SCALE = 1.5
    TABLE = {"a": np.arange(100.0)}

    def inner(x):
        return SCALE * jnp.tanh(x)

    def outer(x, shift=0.25):
        return inner(x) + shift

    def recursive(x, depth=3):
        return x if depth == 0 else recursive(jnp.sin(x), depth - 1)

    def looks_up(x):
        return x @ TABLE["a"]

    def made(offset):
        return lambda x: x + offset

    class Base:
        def power(self):
            return 2

    class Thing(Base):
        factor = 3

        def __init__(self, rate):
            self.rate = rate

        def __call__(self, x):
            return self.factor * x ** self.power()

        @staticmethod
        def fixed(x):
            return x + 1

        @property
        def half(self):
            return self.rate / 2

    class Own(Kernel):
        length: float = 2.0

        def cross(self, x1, x2):
            block = jnp.exp(-jnp.sum((x1[:, None] - x2) ** 2, axis=2) / self.length)
            return KernelPair(block, block)

        def diagonal(self, x):
            return KernelPair(jnp.ones(len(x)), jnp.ones(len(x)))

    @jax.custom_jvp
    def bent(x):
        return jnp.abs(x)

    @bent.defjvp
    def _(primals, tangents):
        return bent(primals[0]), jnp.sign(primals[0]) * tangents[0]

    def guarded(x):
        try:
            return math.sqrt(x)
        except ValueError:
            return 0.0

    settings = {
        "chain": outer,
        "recursive": recursive,
        "global": looks_up,
        "closure": made(0.5),
        "partial": functools.partial(outer, shift=0.5),
        "compiled": jax.jit(inner),
        "batched": jax.vmap(inner),
        "bent": bent,
        "object": Thing(0.1),
        "method": Thing(0.1).power,
        "static": Thing.fixed,
        "class": Thing,
        "kernel": Own(),
        "guarded": guarded,
        "activation": nb.networks.mlp(activation=inner),
        "cached": functools.cache(inner),
    }
"""


def load(text: str, tmp_path: Path, name: str = "mine") -> dict[str, object]:
    """`settings` of a model file with that text."""
    path = tmp_path / f"{name}.py"
    path.write_text(textwrap.dedent(text))
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.settings


def told(settings: dict[str, object]) -> dict[str, object]:
    return {name: describe(value) for name, value in settings.items()}


@pytest.fixture(scope="module")
def before(tmp_path_factory) -> dict[str, object]:
    return told(load(BEFORE, tmp_path_factory.mktemp("before")))


EVERY_INNER = "chain partial compiled batched activation cached"


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        ("SCALE = 1.5", "SCALE = 1.6", EVERY_INNER),
        ("SCALE * jnp.tanh(x)", "SCALE * jnp.sin(x)", EVERY_INNER),
        ("shift=0.25", "shift=0.75", "chain partial"),
        ("shift=0.5", "shift=0.75", "partial"),
        ("depth - 1", "depth - 2", "recursive"),
        ("np.arange(100.0)", "np.arange(1.0, 101.0)", "global"),
        ("made(0.5)", "made(0.6)", "closure"),
        ("lambda x: x + offset", "lambda x: x - offset", "closure"),
        ("jnp.sign(primals[0])", "-jnp.sign(primals[0])", "bent"),
        ("return jnp.abs(x)", "return -jnp.abs(x)", "bent"),
        ("return 2", "return 4", "object method class"),
        ("factor = 3", "factor = 5", "object method class"),
        ("x + 1", "x + 2", "static object method class"),
        ("self.rate / 2", "self.rate / 3", "object method class"),
        ('"object": Thing(0.1)', '"object": Thing(0.2)', "object"),
        ("length: float = 2.0", "length: float = 3.0", "kernel"),
        ("axis=2) / self.length", "axis=2) * self.length", "kernel"),
        ("except ValueError", "except OverflowError", "guarded"),
        ("import math", "import cmath as math", "guarded"),
    ],
)
def test_an_edit_changes_what_it_reaches_and_nothing_else(old, new, changed, before, tmp_path):
    assert old in BEFORE
    after = told(load(BEFORE.replace(old, new), tmp_path))
    assert {name for name in before if before[name] != after[name]} == set(changed.split())


def test_names_of_files_places_of_lines_and_comments_are_no_change(before, tmp_path):
    moved = "    # moved\n\n" + BEFORE.replace("return ", "return  ").replace(" = ", "  =  ")
    assert told(load(moved, tmp_path, "other")) == before


def test_another_process_tells_the_same(before, tmp_path):
    settings = load(BEFORE, tmp_path)
    # One cannot be pickled, and one is a package's function that says that it is the user's.
    del settings["cached"], settings["batched"]
    again = cloudpickle.loads(cloudpickle.dumps(settings))
    assert told(again) == {name: before[name] for name in settings}


def test_edits_of_a_module_that_is_imported_are_seen(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    text = """
        import helpers_of_mine
        from helpers_of_mine import plain

        def within(x):
            from helpers_of_mine import plain as own
            return own(x)

        settings = {
            "attribute": lambda x: helpers_of_mine.plain(x),
            "name": lambda x: plain(x),
            "whole": lambda x: vars(helpers_of_mine)["plain"](x),
            "other": lambda x: helpers_of_mine.other(x),
            "within": within,
        }
    """
    found = []
    for factor in (2, 3):
        helper = tmp_path / "helpers_of_mine.py"
        helper.write_text(f"def plain(x):\n    return {factor} * x\ndef other(x):\n    return x\n")
        sys.modules.pop("helpers_of_mine", None)
        importlib.invalidate_caches()
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        found.append(told(load(text, tmp_path)))
    sys.modules.pop("helpers_of_mine")
    one, two = found
    assert {name for name in one if one[name] != two[name]} == {
        "attribute",
        "name",
        "whole",
        "within",
    }


# --- values and objects ---------------------------------------------------------------------------

ALIKE_BUT_DIFFERENT = [
    (1, 1.0),
    (1, True),
    ("1", 1),
    ([1], {1}),
    ({1: 2}, {"1": 2}),
    (np.zeros(2), np.zeros((2, 1))),
    (np.zeros(2), np.zeros(2, np.float32)),
    (np.zeros(1000), np.eye(1, 1000)[0]),
    (jnp.zeros(1000), jnp.eye(1, 1000)[0]),
    (jax.random.key(0), jax.random.key(1)),
    (jax.random.key(0), jax.random.key(0, impl="unsafe_rbg")),
    (OrderedDict(a=1), OrderedDict(a=2)),
    (dist.HalfNormal(1.0), dist.HalfNormal(2.0)),
    (dist.HalfNormal(1.0), dist.HalfCauchy(1.0)),
    (dist.Normal(0.0, 1.0), dist.Normal(jnp.zeros(2), 1.0)),
    (dist.LogNormal(0.0, 1.0), dist.LogNormal(0.0, 2.0)),
    (dist.TruncatedNormal(0.0, 1.0, low=0.0), dist.TruncatedNormal(0.0, 1.0, low=0.5)),
    (dist.Normal(0.0, 1.0).expand([2]), dist.Normal(0.0, 1.0).expand([3])),
    (optax.adam(0.1), optax.adam(0.2)),
    (optax.adam(0.1), optax.sgd(0.1)),
    (np.float32, np.float64),
    (jnp.tanh, jnp.sin),
    (np.tanh, jnp.tanh),
    (nb.likelihood.Ordinal([0.0]), nb.likelihood.Ordinal([1.0])),
]


@pytest.mark.parametrize(("one", "other"), ALIKE_BUT_DIFFERENT)
def test_different_things_are_told_differently(one, other):
    assert json.dumps(describe(one)) != json.dumps(describe(other))
    for thing in (one, other):
        again = cloudpickle.loads(cloudpickle.dumps(thing))
        assert json.dumps(describe(again)) == json.dumps(describe(thing))
        assert unidentified(describe(thing)) == []
        assert "0x" not in json.dumps(describe(thing))


def test_use_changes_nothing():
    prior = dist.MultivariateNormal(jnp.zeros(2), jnp.eye(2))
    before = describe(prior)
    prior.sample(jax.random.key(0))
    _ = prior.precision_matrix, prior.mean, prior.support
    assert describe(prior) == before


def test_mappings_and_distributions_are_told_by_their_contents():
    hyperpriors = {"ridge": dist.LogNormal(-1.0, 0.5), "between": dist.HalfNormal(2.0)}
    found = describe(nb.FullBayes(hyperpriors))["hyperpriors"]
    assert found["ridge"]["type"].endswith("LogNormal")
    assert (found["ridge"]["loc"], found["ridge"]["scale"]) == (-1.0, 0.5)
    assert found["between"]["scale"] == 2.0


def test_networks_of_other_libraries_are_told_by_their_contents():
    from flax import linen, nnx

    class Linen(linen.Module):
        width: int

        @linen.compact
        def __call__(self, x):
            return linen.Dense(1)(jnp.tanh(linen.Dense(self.width)(x)))

    def equinox(width):
        return from_equinox(lambda key: eqx.nn.MLP(2, 1, width, 1, key=key))

    def flax(width):
        return from_nnx(lambda rngs: nnx.Sequential(nnx.Linear(2, width, rngs=rngs), jnp.tanh))

    def old_flax(width):
        return from_linen(Linen(width), jnp.zeros((1, 2)))

    for made in (equinox, flax, old_flax):
        assert describe(made(3)) == describe(made(3))
        assert describe(made(3)) != describe(made(4))
        assert unidentified(describe(made(3))) == []


@pytest.mark.parametrize(
    ("thing", "kind"),
    [
        ((i for i in ()), "generator"),
        ({"a": [functools.partial(print, iter(map(str, [])), (i for i in ()))]}, "generator"),
        (lambda x, source=(i for i in ()): next(source) + x, "generator"),
    ],
)
def test_what_hides_its_contents_is_said(thing, kind):
    assert unidentified(describe(thing)) == [kind]


def test_what_holds_itself_is_told():
    loop: list[object] = [1]
    loop.append(loop)
    assert describe(loop) == [1, {"within itself": "list"}]
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ConfigurationError, match="nested too deep"):
        describe(deep)


@pytest.mark.parametrize("path", sorted(MODELS.glob("*.py")), ids=lambda path: path.stem)
def test_every_model_file_can_be_gone_on_with(path):
    one, two = (from_file(path).identity() for _ in range(2))
    assert json.dumps(one) == json.dumps(two)
    assert unidentified(one) == []
    assert "0x" not in json.dumps(one)
