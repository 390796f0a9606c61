"""Leave-one-out, of the laws that know what leaving a point out does."""

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from ntkbayes.app.report.html import Cell, data_of, error_of, law_name, prose, table_of
from ntkbayes.app.report.words import listed
from ntkbayes.bridges.arviz import to_datatree
from ntkbayes.comparison import Comparison, sum_over_points
from ntkbayes.laws.wrappers.held_out import expected_log
from ntkbayes.predictions import ClassPredictions, Predictions

if TYPE_CHECKING:
    from arviz_stats.utils import ELPDData


def leave_one_out(comparison: Comparison) -> str:
    """Of the laws that know what leaving a point out does."""
    chosen = {
        name: p
        for name, p in comparison.training.items()
        if p.is_posterior or p.leave_one_out is not None
    }
    if not chosen:
        return ""
    try:
        content = _leave_one_out_table(comparison, chosen)
    except Exception as error:
        # Better no table than no report.
        content = prose("left out failed", error=f"{type(error).__name__}: {error}")
    return prose("section leave-one-out", content=content)


def _leave_one_out_table(comparison: Comparison, chosen: Mapping[str, Predictions]) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what they warn of, high Pareto k, is in the table
        from arviz_stats import compare

        estimates = {name: _left_out(p) for name, p in chosen.items()}
        ranking = compare(estimates, round_to="none") if len(estimates) > 1 else None
    rows, doubtful = [], []
    for name in ranking.index if ranking is not None else estimates:
        loo = estimates[name]
        cells: list[Cell] = [data_of(loo.elpd, 1) + error_of(loo.se, 1), data_of(loo.p, 1)]
        if ranking is not None:
            row = ranking.loc[name]
            difference = data_of(row["elpd_diff"], 1, signed=True) + error_of(row["dse"], 1)
            cells += ["–" if row["rank"] == 0 else difference, data_of(row["weight"], 2)]
        if loo.pareto_k is None:
            cells.append("–")
        else:
            bad = int(np.sum(~(np.asarray(loo.pareto_k) <= loo.good_k)))
            cells.append(f"{bad} of {loo.n_data_points}")
            if bad > 0.05 * loo.n_data_points:
                doubtful.append(name)
        rows.append((law_name(comparison, name), cells))
    columns = ["ELPD (nats)", "Effective parameters"]
    columns += ["Difference to first", "Stacking weight"] if ranking is not None else []
    text = table_of("Leave-one-out, best first", [*columns, "Pareto k too high"], rows)
    return text + (prose("warning pareto", names=listed(doubtful)) if doubtful else "")


def _left_out(p: Predictions) -> "ELPDData":
    """Leave-one-out ELPD, as a Gaussian posterior knows it, or by weighing the posterior's draws."""
    import xarray as xr
    from arviz_stats import loo as leave_out
    from arviz_stats.utils import ELPDDataLOO

    num_points, k = len(p.targets), {}
    if p.leave_one_out is not None:
        scores = p.leave_one_out
    else:
        loo = leave_out(to_datatree(p), pointwise=True)
        weights = np.asarray(loo.log_weights.transpose("chain", "draw", "obs_id"))
        scores = _weighed(p, weights.reshape(-1, num_points))
        k = {"pareto_k": loo.pareto_k, "good_k": loo.good_k}
    total = sum_over_points(scores)
    return ELPDDataLOO(
        elpd=total.value,
        se=total.error,
        p=float(p.pointwise_elpd.sum()) - total.value,
        n_samples=p.num_target_draws,
        n_data_points=num_points,
        scale="log",
        warning=False,
        elpd_i=xr.DataArray(scores, dims="obs_id"),
        **{"good_k": None, **k},
    )


def _weighed(p: Predictions, log_weights: Float[np.ndarray, "draws n"]) -> Float[np.ndarray, " n"]:
    """The log score of each point under the draws with these weights, whose sum is 1."""
    from scipy.special import logsumexp

    if isinstance(p, ClassPredictions):
        drawn = log_weights[:, :, None] + p.log_probability_draws
        return np.asarray(expected_log(p.targets, logsumexp(drawn, axis=0)))
    assert p.log_likelihood is not None
    return np.asarray(logsumexp(log_weights + p.log_likelihood, axis=0))
