"""The bus: what was accepted is kept here until it has been worked on."""

from falco_talon.bus.consumer import Consumer
from falco_talon.bus.server import EmbeddedServer
from falco_talon.bus.stream import Stream, connect

__all__ = ["Consumer", "EmbeddedServer", "Stream", "connect"]
