"""Tests of the bus, and fixtures with a real nats-server."""
