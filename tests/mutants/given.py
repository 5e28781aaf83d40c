"""A plugin for pytest: the database of the URL is migrated and empty already, and stays."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def django_db_setup(django_test_environment: None) -> None:
    """Take the place of what pytest-django would make anew for every run."""
