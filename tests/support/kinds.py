"""Values of tests that `make test` leaves out and `make long` runs."""

from __future__ import annotations

from typing import Any

import pytest


def longer(*values: Any) -> list[Any]:
    """For `parametrize`: more of the same kind as those that are tried each time."""
    return [pytest.param(value, marks=pytest.mark.long) for value in values]
