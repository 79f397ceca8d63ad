"""Parametrizations of which a few cases run in `make test` and the others in `make test-all`."""

import pytest


def sparing(cases, *kept):
    """All cases in their order; those not kept are slow."""
    assert set(kept) <= set(cases), "a case that is kept has to be one"
    return [case if case in kept else pytest.param(case, marks=pytest.mark.slow) for case in cases]
