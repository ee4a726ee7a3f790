"""Clients of the real cluster."""

from tests.actionners.conftest import clients, create_pod, running

__all__ = ["clients", "create_pod", "running"]
