"""How much is tried: little and the same every time by default, much and at random with HYPOTHESIS_PROFILE=long.

    HYPOTHESIS_PROFILE=long [HYPOTHESIS_SEED=N] .venv/bin/python -m pytest tests/properties

The seed of a long run is printed at its start and repeats it.
"""

from __future__ import annotations

import os
import secrets

import hypothesis
from hypothesis import HealthCheck, settings

LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"
#: Of a long run; the short one is derandomized: it tries the same examples in every run.
SEED = int(os.environ.get("HYPOTHESIS_SEED") or secrets.randbelow(2**32)) if LONG else None

#: How many times the examples of the short form the long one tries.
LONGER = 25


def budget(examples: int, steps: int = 50) -> settings:
    """So many examples; of a state machine, each with at most so many steps."""
    return settings(
        max_examples=examples * (LONGER if LONG else 1),
        stateful_step_count=steps,
        derandomize=not LONG,
        database=None,
        deadline=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),  # a database is slow, and fixtures are shared on purpose
    )


def seed_long_runs() -> str:
    """Make a long run repeatable; returns the line that says how."""
    if SEED is None:
        return "properties: the same examples every time; HYPOTHESIS_PROFILE=long tries more, at random"
    vars(hypothesis.core)["global_force_seed"] = SEED  # what --hypothesis-seed does
    return f"properties: repeat with HYPOTHESIS_PROFILE=long HYPOTHESIS_SEED={SEED}"
