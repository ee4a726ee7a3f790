"""Clients of the real cluster."""

from tests.actionners.conftest import clients, create_pod

__all__ = ["clients", "create_pod"]
