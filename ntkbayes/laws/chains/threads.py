"""Chains that share nothing, in threads: in step each would wait at every draw for the longest
trajectory of all."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import jax
from joblib import cpu_count
from threadpoolctl import ThreadpoolController


def num_threads(num_chains: int) -> int:
    """As many as there are cores, but no more than chains."""
    return min(num_chains, cpu_count())


@jax.jit
def each_chain(state: Any) -> list[Any]:
    """The parts of a state whose arrays have the chains as leading axis."""
    num_chains = len(jax.tree.leaves(state)[0])
    return [jax.tree.map(lambda v, i=i: v[i], state) for i in range(num_chains)]


@contextmanager
def chain_threads(num_chains: int) -> Iterator[Callable[[Callable, Sequence[tuple]], list[Any]]]:
    """A function that calls one program with the arguments of each chain, and waits for all.

    The program has to be compiled already: JAX's settings, such as float64, may be those of one thread.
    """
    threads = num_threads(num_chains)
    own = max(1, cpu_count() // threads)  # or factors' threads compete for cores
    blas = ThreadpoolController().select(user_api="blas")
    own = min([own, *(library.num_threads for library in blas.lib_controllers)])
    with blas.limit(limits=own), ThreadPoolExecutor(threads) as pool:
        yield lambda program, given: list(
            pool.map(lambda part: jax.block_until_ready(program(*part)), given)
        )
