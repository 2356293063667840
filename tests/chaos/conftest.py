"""The acceptance tests' fixtures serve here too."""

from tests.acceptance.conftest import both_services

__all__ = ["both_services"]
