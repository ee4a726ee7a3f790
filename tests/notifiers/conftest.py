"""A server to call."""

from tests.endpoint import endpoint, unused_url

__all__ = ["endpoint", "unused_url"]
