"""Diagnostics of a fit, and how they read."""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

import equinox as eqx

from ntkbayes.display import Sheet, Summarised, number

UNITS = {
    "log_evidence": "nats",
    "log_evidence_error": "nats",
    "log_density": "nats",
    "last_move": "nats",
    "worst_move": "nats",
    "held_out_nll": "nats per point",
    "training_loss": "nats per point",
    "validation_loss": "nats per point",
    "residual": "in probability",
    "worst_residual": "in probability",
    "logit_error": "of a logit",
    "worst_logit_error": "of a logit",
    "site_move": "standard deviations",
}
"""Of diagnostics that have one, by their names."""


def facts_of(diagnostics: Mapping[str, Any]) -> dict[str, str]:
    """Diagnostics as text, with their units, by names as they read in a sentence."""
    return {
        name.replace("_", " "): number(value, UNITS.get(name, ""))
        for name, value in diagnostics.items()
    }


class Info(Summarised, eqx.Module):
    """Diagnostics of a fit: numbers by name, each explained where its class is defined."""

    @property
    def facts(self) -> dict[str, str]:
        """Numbers with their units, by names as they read in a sentence."""
        return facts_of({each.name: getattr(self, each.name) for each in dataclasses.fields(self)})

    @property
    def _sheet(self) -> Sheet:
        return Sheet(type(self).__name__, self.facts)


InfoT = TypeVar("InfoT", bound=Info, covariant=True)
