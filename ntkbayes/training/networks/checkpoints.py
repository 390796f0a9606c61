"""Training states on disk, with a fingerprint of the training that they belong to."""

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ntkbayes.errors import StorageError
from ntkbayes.files import load_arrays, save_arrays
from ntkbayes.training.networks.state import TrainingState


def digest_of_arrays(*arrays: Array | np.ndarray) -> str:
    whole = hashlib.sha256()
    for array in arrays:
        whole.update(np.ascontiguousarray(array).tobytes())
    return whole.hexdigest()[:16]


def digest_of_program(function: Callable, *arguments: Any) -> str:
    """A digest of what a function computes, including its constants."""
    program = jax.make_jaxpr(function)(*arguments)
    text = re.sub(r"0x[0-9a-f]+", "", str(program.jaxpr))
    constants = [np.asarray(value) for value in program.consts]
    return digest_of_arrays(np.frombuffer(text.encode(), np.uint8), *constants)


def _numbers(state: TrainingState) -> list[Array]:
    plain = eqx.tree_at(lambda s: s.key, state, jax.random.key_data(state.key))
    return jax.tree.leaves(plain)


def save_checkpoint(path: Path, state: TrainingState, mark: str) -> None:
    arrays: dict[str, Any] = {
        f"leaf{i}": np.asarray(leaf) for i, leaf in enumerate(_numbers(state))
    }

    save_arrays(path, {"mark": np.array(mark), **arrays})


def load_checkpoint(path: Path, like: TrainingState, mark: str) -> TrainingState:
    try:
        arrays = load_arrays(path)
        marked = json.loads(str(arrays["mark"]))
        leaves = [arrays[f"leaf{i}"] for i in range(len(arrays) - 1)]
    except (StorageError, ValueError, KeyError, RecursionError) as error:
        raise StorageError(
            f"{path} is not a readable checkpoint ({error}); delete it and run again"
        ) from error
    wanted = json.loads(mark)
    if not isinstance(marked, dict):
        raise StorageError(f"{path} is not a checkpoint of ntkbayes; delete it and run again")
    if marked != wanted:
        names = ", ".join(name for name in wanted if marked.get(name) != wanted[name])
        raise StorageError(
            f"{path} is a checkpoint of another training (it differs in: {names}); delete it, or "
            "choose another file"
        )
    plain = eqx.tree_at(lambda s: s.key, like, jax.random.key_data(like.key))
    shapes = [np.shape(leaf) for leaf in jax.tree.leaves(plain)]
    if [leaf.shape for leaf in leaves] != shapes:
        raise StorageError(f"{path} is not a whole checkpoint; delete it and run again")
    loaded = jax.tree.unflatten(jax.tree.structure(plain), list(map(jnp.asarray, leaves)))
    key = jax.random.wrap_key_data(loaded.key, impl=jax.random.key_impl(like.key))
    return eqx.tree_at(lambda s: s.key, loaded, key)
