"""Training from many initial functions at once, by preconditioned non-linear conjugate gradients.

Each draw is a problem of its own: min over a of −Σ log p(y|f) + ½ aᵀ P a, f = f0 + P a, P = Θ/ridge
(THEORY 2). What they share is the kernel, so a step of all is one product with the factors of one
preconditioner. A fixed number of *slots* take part in it; a draw that has reached its goal leaves its
slot to the next in the queue.

Shapes: n points, C logits, S draws, w slots.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

from ntkbayes.likelihood import Likelihood
from ntkbayes.linalg import Block, Curvature, Logits, apply, everywhere, largest
from ntkbayes.training.line_search import line_search
from ntkbayes.training.preconditioner import Preconditioner

Draws = Float[Array, "draws n classes"]
Slots = Float[Array, "slots n classes"]
PerDraw = Float[Array, " draws"]
PerSlot = Float[Array, " slots"]


class _UnderWay(eqx.Module):
    """The draws in the slots.

    Attributes:
        draw: which of the S each is; S for none.
        a, logits: where it is.
        curvature: W there.
        gradient: a − r(f) there, in units of probability.
        previous: the gradient a step before.
        decrement: previousᵀ Σ previous.
        df, da: the last direction, in f and in a; zero before the first step.
        count: steps taken.
    """

    draw: Int[Array, " slots"]
    a: Slots
    logits: Slots
    curvature: Curvature
    gradient: Slots
    previous: Slots
    decrement: PerSlot
    df: Slots
    da: Slots
    count: Int[Array, " slots"]

    @classmethod
    def at(
        cls,
        likelihood: Likelihood,
        targets: Logits,
        draw: Int[Array, " slots"],
        a: Slots,
        logits: Slots,
    ) -> "_UnderWay":
        gradient = a - jax.vmap(lambda f: likelihood.residual(targets, f))(logits)
        curvature = jax.vmap(lambda f: likelihood.curvature(targets, f))(logits)
        none, zero = jnp.zeros(len(a)), jnp.zeros_like(a)
        count = jnp.zeros(len(a), dtype=int)
        return cls(draw, a, logits, curvature, gradient, gradient, none, zero, zero, count)

    def is_active(self, goals: PerDraw, max_iterations: Int[Array, ""]) -> Bool[Array, " slots"]:
        goal = goals.at[self.draw].get(mode="fill", fill_value=jnp.inf)
        return (largest(self.gradient, axis=(1, 2)) > goal) & (self.count < max_iterations)

    def step(
        self,
        likelihood: Likelihood,
        targets: Logits,
        preconditioner: Preconditioner,
        active: Bool[Array, " slots"],
    ) -> "_UnderWay":
        """One step of Polak–Ribière⁺ (Gilbert & Nocedal 1992); those that are not active stay."""
        v, z = preconditioner.apply(self.gradient, likelihood.project)
        before = jnp.where(self.decrement > 0, self.decrement, 1.0)
        beta = jnp.maximum(_inner(self.gradient - self.previous, v), 0) / before
        df, da = _spread(beta) * self.df - v, _spread(beta) * self.da - z
        uphill = _spread(_inner(self.gradient, df) >= 0)
        df, da = jnp.where(uphill, -v, df), jnp.where(uphill, -z, da)
        slopes = (_inner(self.gradient, df), _inner(self.a, df), _inner(da, df))
        search = jax.vmap(lambda f, *given: line_search(likelihood, targets, f, *given))
        t, residual, curvature = search(self.logits, self.curvature, df, *slopes)
        t = _spread(jnp.where(active, t, 0.0))
        a, logits = self.a + t * da, self.logits + t * df
        gradient = jnp.where(_spread(active), a - residual, self.gradient)
        decrement = _inner(self.gradient, v)
        count = self.count + active
        return _UnderWay(
            self.draw, a, logits, curvature, gradient, self.gradient, decrement, df, da, count
        )


def _inner(u: Slots, v: Slots) -> PerSlot:
    return jnp.sum(u * v, axis=(1, 2))


def _spread(scalars: Shaped[Array, " slots"]) -> Shaped[Array, "slots 1 1"]:
    return scalars[:, None, None]


class _State(eqx.Module):
    """a and steps of the draws that have left, the slots, and how many have entered them."""

    a: Draws
    counts: Int[Array, " draws"]
    slots: _UnderWay
    entered: Int[Array, ""]

    def settled(self) -> "_State":
        """With the draws still in slots where they have come to."""
        slots = self.slots
        return _State(
            self.a.at[slots.draw].set(slots.a, mode="drop"),
            self.counts.at[slots.draw].set(slots.count, mode="drop"),
            slots,
            self.entered,
        )


class _Pass(eqx.Module):
    """All draws of a queue led to their goals, from where they are.

    Attributes:
        logits: f of each of the S draws.
        goals: for the largest |gradient| of each.
        queue: the draws to be solved come first; `length` of them.
    """

    likelihood: Likelihood
    targets: Logits
    preconditioner: Preconditioner
    logits: Draws
    goals: PerDraw
    max_iterations: Int[Array, ""]
    queue: Int[Array, " draws"]
    length: Int[Array, ""]
    num_slots: int = eqx.field(static=True)

    @eqx.filter_jit
    def start(self, a: Draws) -> _State:
        size = len(a)
        places = jnp.arange(self.num_slots)
        draw = jnp.where(places < self.length, self.queue[: self.num_slots], size)
        slots = self._enter(draw, a)
        entered = jnp.minimum(self.num_slots, self.length)
        return _State(a, jnp.zeros(size, dtype=int), slots, entered)

    def _enter(self, draw: Int[Array, " slots"], a: Draws) -> _UnderWay:
        mine = [values.at[draw].get(mode="clip") for values in (a, self.logits)]
        slots = _UnderWay.at(self.likelihood, self.targets, draw, *mine)
        exists = _spread(draw < len(a))
        return eqx.tree_at(lambda s: s.gradient, slots, jnp.where(exists, slots.gradient, 0.0))

    @eqx.filter_jit
    def advance(self, state: _State, num_steps: Int[Array, ""]) -> tuple[_State, Array]:
        """Some steps of all slots, and the number of draws that have reached their goals, or their
        last iteration."""

        def active(state: _State) -> Bool[Array, " slots"]:
            return state.slots.is_active(self.goals, self.max_iterations)

        def unfinished(carry: tuple[_State, Array]) -> Array:
            state, step = carry
            return jnp.any(active(state)) & (step < num_steps)

        def update(carry: tuple[_State, Array]) -> tuple[_State, Array]:
            state, step = carry
            given = (self.likelihood, self.targets, self.preconditioner)
            slots = state.slots.step(*given, active(state))
            state = _State(state.a, state.counts, slots, state.entered)
            return self._refilled(state, ~active(state)), step + 1

        state, _ = jax.lax.while_loop(unfinished, update, (state, jnp.asarray(0)))
        left = state.entered - jnp.sum(active(state))
        state = jax.tree.map(everywhere, state)
        return state, everywhere(left)

    def _refilled(self, state: _State, done: Bool[Array, " slots"]) -> _State:
        """The next of the queue in the place of draws that are done, some at a time: a likelihood is
        evaluated for as many, whether they come or not."""
        size, num_slots = len(state.a), self.num_slots
        if size == num_slots:
            return state
        some = max(1, num_slots // 8)
        (places,) = jnp.nonzero(done, size=some, fill_value=num_slots)
        following = state.entered + jnp.cumsum(places < num_slots) - 1
        enters = (places < num_slots) & (following < self.length)
        places = jnp.where(enters, places, num_slots)  # an index that nothing has
        old = state.slots
        leaving = old.draw.at[places].get(mode="fill", fill_value=size)
        a = state.a.at[leaving].set(old.a.at[places].get(mode="clip"), mode="drop")
        counts = state.counts.at[leaving].set(old.count.at[places].get(mode="clip"), mode="drop")
        new = self._enter(self.queue.at[following].get(mode="clip"), a)
        slots = jax.tree.map(lambda held, new: held.at[places].set(new, mode="drop"), old, new)
        return _State(a, counts, slots, state.entered + jnp.sum(enters))


@eqx.filter_jit
def _logits(ntk: Block, ridge: Float[Array, ""], initial: Draws, a: Draws) -> Draws:
    """f0 + P a."""
    return everywhere(initial + apply(ntk, a / ridge))


@eqx.filter_jit
def _residuals(likelihood: Likelihood, targets: Logits, a: Draws, logits: Draws) -> PerDraw:
    """max |a − r(f)| of each draw."""
    expected = jax.vmap(lambda f: likelihood.residual(targets, f))(logits)
    return everywhere(largest(a - expected, axis=(1, 2)))


def conjugate_gradients(
    likelihood: Likelihood,
    ntk: Block,
    ridge: Float[Array, ""],
    targets: Logits,
    initial: Draws,
    a: Draws,
    logits: Draws,
    preconditioner: Preconditioner,
    *,
    tolerance: float,
    max_iterations: int,
    num_slots: int,
    progress: Callable[[int], object] = lambda solved: None,
) -> tuple[Draws, Draws, PerDraw, Int[Array, " draws"]]:
    """Solutions from a start, globally convergent on the strictly convex loss.

    One step of the slots costs what one product with Θ does. f and a move apart by round-off, the more
    where the preconditioner is in float32: passes are made from f computed afresh, in float64, as long
    as each halves the worst residual.

    Args:
        initial: f0 of each draw.
        a, logits: where to start, logits = f0 + P a.
        tolerance: on every draw's residual, in units of probability.
        max_iterations: steps of each draw in a pass.
        num_slots: draws solved at the same time.
        progress: called with the number of draws that have newly come to their ends.

    Returns:
        a, f, residuals (which may miss the tolerance) and steps of each draw.
    """
    assess = lambda a, logits: _residuals(likelihood, targets, a, logits)  # noqa: E731
    residual, counts, met = assess(a, logits), jnp.zeros(len(a), dtype=int), 0
    while not (worst := float(largest(residual))) <= tolerance:
        todo = ~(residual <= tolerance)
        goals = jnp.maximum(tolerance, preconditioner.reach * residual)
        is_last = bool(jnp.all(goals == tolerance))
        waiting = int(jnp.sum(todo))
        march = _Pass(
            likelihood,
            targets,
            preconditioner,
            logits,
            goals,
            jnp.asarray(max_iterations),
            jnp.argsort(~todo, stable=True),
            jnp.asarray(waiting),
            min(num_slots, len(a)),
        )
        state, ended = march.start(a), 0
        while ended < waiting:
            state, left = march.advance(state, jnp.asarray(_STEPS))
            ended = int(left)
            if is_last and len(a) - waiting + ended > met:
                progress(len(a) - waiting + ended - met)
                met = len(a) - waiting + ended
        state = state.settled()
        moved = _logits(ntk, ridge, initial, state.a)
        found = assess(state.a, moved)
        counts = counts + state.counts
        better = found < residual
        a = jnp.where(_spread(better), state.a, a)
        logits = jnp.where(_spread(better), moved, logits)
        residual = jnp.where(better, found, residual)
        if not float(largest(found)) < worst / 2:
            break
    return a, logits, residual, counts


_STEPS = 8  # between two reports of progress
