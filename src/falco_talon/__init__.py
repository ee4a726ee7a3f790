"""Falco Talon: receive the alerts of Falco and react to them, by no-code YAML rules."""

__version__ = "0.1.0"
