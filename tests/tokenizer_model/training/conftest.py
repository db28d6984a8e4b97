"""Fixtures of the training tests."""

from __future__ import annotations

import plain
import pytest


@pytest.fixture
def float64_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """sam2 stays in float64 where weights are."""
    plain.keep_float64(monkeypatch)
