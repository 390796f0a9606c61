# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Six points on a circle
#
# The clearest picture of what this library rests on. A wide network trained with
# cross-entropy is a kernel machine *if something stops it*: a ridge on ‖θ − θ0‖², or targets that
# leave every class some probability. If nothing does, its outputs grow without bound, and its Neural
# Tangent Kernel leaves its initial value, at any width ([theory, section
# 1](../theory.md#theory-1)).
#
# Yu, Tian and Chen (ICLR 2025, [arXiv 2504.11130](https://arxiv.org/abs/2504.11130)) show the
# second half with six points on the unit circle, labels 0, 1, 0, 1, 0, 1, a ReLU network of three
# hidden layers, logistic loss and plain gradient descent. Here are the same points unconstrained,
# with a ridge, and with smoothed labels.

# %%
# %matplotlib inline
# %config InlineBackend.figure_formats = ["retina"]
import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import ntkbayes as nb
from ntkbayes.figures import CLASS_COLOURS, STYLE
from ntkbayes.training.networks import Trainer, logits_of, stable_step_size

angles = np.arange(6) * np.pi / 3
circle = nb.Dataset(np.column_stack([np.cos(angles), np.sin(angles)]), np.arange(6) % 2)
likelihood = nb.likelihood.Bernoulli()

# %% [markdown]
# ## Training real networks
#
# Three ways to train, two widths, 10⁴ full-batch steps each, all of the same size and from the same
# start. Along the way we record the outputs and the empirical NTK.

# %%
SMOOTHED = circle.smooth(0.2)  # 0.9 and 0.1 in place of 1 and 0
REGIMES = {
    "no ridge, hard labels": (0.0, circle),
    "ridge 0.1, hard labels": (0.1, circle),
    "no ridge, smoothed labels": (0.0, SMOOTHED),
}
WIDTHS = (64, 256)
STEPS = np.unique(np.geomspace(1, 10_000, 25).astype(int))
features = jnp.asarray(circle.features, jnp.float32)
networks = {width: nb.networks.mlp(depth=3, bias_std=0.0, width=width) for width in WIDTHS}
# One initialisation per width; the leading axis is that of networks trained side by side.
start = {
    width: jax.tree.map(lambda leaf: leaf[None], network.init(jax.random.key(1), features))
    for width, network in networks.items()
}
step_size = min(
    stable_step_size(network, start[width], features, likelihood, ridge=0.1)
    for width, network in networks.items()
)
print(f"step size {step_size:.3f}: training time {step_size * STEPS[-1]:.0f}")


# %%
def ntk(width, params):
    one = jax.tree.map(lambda leaf: leaf[0], params)
    return np.asarray(nb.kernels.EmpiricalNTK(networks[width], one).traced(features))


def train(width, ridge, data):
    """Outputs (times, 6) and NTK (times, 6, 6) at the recorded steps."""
    trainer = Trainer(networks[width], likelihood, ridge=ridge, step_size=step_size)
    targets = likelihood.encode(data).astype(jnp.float32)
    state = trainer.start(start[width], targets)
    outputs, kernels = [], []
    for step in STEPS:
        state = trainer.advance(state, features, targets, int(step) - int(state.step))
        outputs.append(np.asarray(logits_of(networks[width], state.params, features))[0, :, 0])
        kernels.append(ntk(width, state.params))
    return np.array(outputs), np.array(kernels)


recorded = {
    (name, width): train(width, ridge, data)
    for name, (ridge, data) in REGIMES.items()
    for width in WIDTHS
}

# %% [markdown]
# ## What the theory predicts
#
# In the two bounded regimes the end of training is known in advance. With smoothed labels the
# network fits them, so its outputs are ± log 0.9/0.1. With a ridge they solve [equation
# 2](../theory.md#theory-2); for the network linearised at its own start, that is `MAP` under the
# prior `nb.linearise`.

# %%
ends = {}
for width, network in networks.items():
    params = jax.tree.map(lambda leaf: leaf[0], start[width])
    trained = nb.MAP().fit(nb.linearise(network, params, ridge=0.1), circle)
    fitted = np.log(SMOOTHED.targets[:, 1] / SMOOTHED.targets[:, 0])
    ends["ridge 0.1, hard labels", width] = np.asarray(trained.mean(circle.features))[:, 0]
    ends["no ridge, smoothed labels", width] = fitted

# %%
times = step_size * STEPS
with matplotlib.rc_context(STYLE | {"text.parse_math": True}):
    figure, panels = plt.subplots(2, 3, figsize=(9.5, 5.6), layout="constrained", sharex=True)
    for column, name in enumerate(REGIMES):
        upper, lower = panels[:, column]
        outputs, _ = recorded[name, WIDTHS[-1]]
        for point, label in enumerate(circle.labels):
            upper.plot(times, outputs[:, point], color=CLASS_COLOURS[label])
        for end in ends.get((name, WIDTHS[-1]), ()):
            upper.axhline(end, color="#8a8a8a", linewidth=1, dashes=(4, 3), zorder=0)
        upper.set_title(name, loc="left")
        for width, dashes in zip(WIDTHS, ((2, 1.5), (None, None)), strict=True):
            kernels = recorded[name, width][1]
            before = ntk(width, start[width])
            drift = np.linalg.norm(kernels - before, axis=(1, 2)) / np.linalg.norm(before)
            lower.plot(times, drift, color="#333333", dashes=dashes, label=f"width {width}")
        lower.set(xscale="log", yscale="log", ylim=(8e-3, 30), xlabel="Training time η · steps")
        lower.grid(visible=True, linewidth=0.6)
        upper.set_ylim(-12, 12)
        upper.grid(visible=True, linewidth=0.6)
    for label in (1, 0):
        panels[0, 0].plot([], [], color=CLASS_COLOURS[label], label=f"label {label}")
    panels[0, 0].legend(loc="upper left")
    panels[0, 1].plot([], [], color="#8a8a8a", dashes=(4, 3), label="predicted end")
    panels[0, 1].legend(loc="upper left")
    panels[1, 0].legend(loc="lower right")
    panels[0, 0].set_ylabel(f"Output at the six points\n(width {WIDTHS[-1]})")
    panels[1, 0].set_ylabel(r"Drift $\Vert\Theta_t - \Theta_0\Vert / \Vert\Theta_0\Vert$")
    plt.show()

# %% [markdown]
# On the left nothing ends: the outputs grow like the logarithm of time, and the kernel moves
# with them. In the middle and on the right training is over after a time of about 20; the wider
# network ends within 0.1 of where its linearisation predicts, and the kernel stays. At
# width 256 the drift is five to eight times smaller than at width 64, so there it is a matter of
# width. On the left it is a matter of time.
#
# ## In numbers
#
# For hard labels without a ridge, a theorem of the same paper bounds the movement of the kernel
# from below, at any width: over time, some entry of Θ changes by at least
# $\lambda_{\min}(\Theta)/(2n^2)$. The theorem is about the supremum over all times, so what belongs
# beside it is the largest change so far.

# %%
rows = {}
for (name, width), (outputs, kernels) in recorded.items():
    before = ntk(width, start[width])
    tenth = np.searchsorted(STEPS, STEPS[-1] / 10)
    moved = np.linalg.norm(kernels - before, axis=(1, 2)) / np.linalg.norm(before)
    rows[name, width] = {
        "largest output": np.abs(outputs[-1]).max(),
        "to predicted end": np.abs(outputs[-1] - ends.get((name, width), np.nan)).max(),
        "drift": moved[-1],
        "drift, t/10": moved[tenth],
        "drift, largest": moved.max(),
        "largest change of an entry": np.abs(kernels - before).max(),
        "λ_min/(2n²)": np.linalg.eigvalsh(before)[0] / (2 * 6**2),
    }
table = pd.DataFrame.from_dict(rows, orient="index", dtype=float).rename_axis(["regime", "width"])
table.round(3)

# %%
with matplotlib.rc_context(STYLE | {"text.parse_math": True}):
    figure, panels = plt.subplots(1, 3, figsize=(9.5, 3.1), layout="constrained", sharey=True)
    for panel, name in zip(panels, REGIMES, strict=True):
        for width, dashes in zip(WIDTHS, ((2, 1.5), (None, None)), strict=True):
            before = ntk(width, start[width])
            change = np.abs(recorded[name, width][1] - before).max(axis=(1, 2))
            so_far = np.maximum.accumulate(change)
            panel.plot(times, so_far, color="#333333", dashes=dashes, label=f"width {width}")
            bound = np.linalg.eigvalsh(before)[0] / (2 * 6**2)
            panel.axhline(bound, color="#D55E00", linewidth=1, dashes=dashes)
        panel.set(xscale="log", yscale="log", xlabel="Training time η · steps")
        panel.set_title(name, loc="left")
        panel.grid(visible=True, linewidth=0.6)
    panels[0].plot([], [], color="#D55E00", linewidth=1, label=r"$\lambda_{\min}/(2n^2)$")
    panels[0].legend(loc="upper left")
    panels[0].set_ylabel(r"Largest $|\Theta_s - \Theta_0|$, $s \leq t$")
    plt.show()

# %% [markdown]
# On the left the theorem applies, and at these widths the bound is far below what happens from the
# first steps on. Its point is that it does not fall with width (here the wider network has the
# larger $\lambda_{\min}$): however wide the network, its kernel moves by that much in the end. In
# the other panels the theorem does not apply. There the change stops, and it falls with width, so
# that at some width it stays below the line for ever.
