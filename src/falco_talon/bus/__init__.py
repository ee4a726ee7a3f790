"""The bus: what was accepted is kept here until it has been worked on."""

from falco_talon.bus.acknowledgements import Acknowledgements
from falco_talon.bus.bus import Bus
from falco_talon.bus.connection import Address, connect
from falco_talon.bus.consumer import Consumer
from falco_talon.bus.dead import DeadLetters
from falco_talon.bus.delivery import Bookkeeping
from falco_talon.bus.duplicates import Duplicates
from falco_talon.bus.journal import Journal
from falco_talon.bus.locks import Locks
from falco_talon.bus.peers import Peers
from falco_talon.bus.progress import Progress
from falco_talon.bus.server import EmbeddedServer
from falco_talon.bus.stream import Stream

__all__ = [
    "Acknowledgements",
    "Address",
    "Bookkeeping",
    "Bus",
    "Consumer",
    "DeadLetters",
    "Duplicates",
    "EmbeddedServer",
    "Journal",
    "Locks",
    "Peers",
    "Progress",
    "Stream",
    "connect",
]
