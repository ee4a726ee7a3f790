"""What replicas know each other by: a key that each derives from the secret they share."""

import hashlib
import hmac
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from falco_talon.config import Config
from falco_talon.errors import BusError

PEER_INBOX: Final = "_PEER"
"""Where they get their answers: nothing that our own daemon is sent passes there."""

_MIN_BYTES = 16
_PURPOSE = b"falco-talon: key of the replicas"
_WHERE = re.compile(r"(?:[0-9A-Za-z.-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}")


@dataclass(frozen=True, slots=True)
class Peers:
    """How the other replicas are let in here, and we are at theirs.

    A server knows the public key only, and a client signs what the server makes up: neither the
    secret nor anything that opens a door goes over the network.
    """

    port: int
    public_key: str
    seed: str = field(repr=False)

    @classmethod
    def of(cls, config: Config, file: Path) -> Self:
        """Derive the key from the secret in *file*.

        :raises BusError: if the file cannot be read or holds too little.
        """
        where = f"nats.shared_secret_file '{file}'"
        try:
            secret = file.read_bytes().strip()
        except OSError as error:
            raise BusError(f"{where} cannot be read: {error.strerror}") from None
        if len(secret) < _MIN_BYTES:
            raise BusError(f"{where} holds {len(secret)} bytes, {_MIN_BYTES} are the least")
        return cls.derive(config.nats.peer_port, secret)

    @classmethod
    def derive(cls, port: int, secret: bytes) -> Self:
        """Return what follows from the secret."""
        import nkeys

        raw = hmac.digest(secret, _PURPOSE, hashlib.sha256)
        seed = bytes(nkeys.encode_seed(raw, nkeys.PREFIX_BYTE_USER))
        public_key = bytes(nkeys.from_seed(bytearray(seed)).public_key)
        return cls(port, public_key.decode(), seed.decode())

    def url(self, where: str) -> str:
        """Return the URL of the replica that listens at *where* (``host:port``).

        :raises BusError: if that is no such place.
        """
        if not _WHERE.fullmatch(where):  # it comes from outside
            raise BusError(f"{where!r} is no host:port")
        return f"nats://{where}"
