"""The keys of the configuration, with their defaults, ranges and meaning."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
)

from falco_talon.config.document import Document, read_document
from falco_talon.config.environment import overlay
from falco_talon.config.faults import describe
from falco_talon.config.settings import NotifierSettings
from falco_talon.errors import ConfigError
from falco_talon.protected import PROTECTED, Protected

_STATE_DIR = Path("/var/lib/falco-talon")


def _split(value: object) -> object:
    """Weak conversion of a list: text with commas, as in an environment variable."""
    if isinstance(value, str):
        return [item for item in (part.strip() for part in value.split(",")) if item]
    return value


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _level(value: object) -> object:
    """``warn`` is what the log lines themselves say."""
    lowered = _lower(value)
    return "warning" if lowered == "warn" else lowered


_Names = Annotated[tuple[str, ...], BeforeValidator(_split)]
_Paths = Annotated[tuple[Path, ...], BeforeValidator(_split)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Deduplication(_Section):
    """Deduplication of events, here and among replicas."""

    leader_election: bool = Field(
        True,
        description="elect one of the replicas, whose stream takes the events of all, so that "
        "equal ones are found; needs a cluster and `nats.shared_secret_file`",
    )
    time_window_seconds: int = Field(
        5, ge=0, description="an equal event within that time is dropped; 0 keeps every event"
    )
    key: Annotated[Literal["output", "event"], BeforeValidator(_lower)] = Field(
        "output",
        description="what makes events equal: `output`, their output text; `event`, also rule, "
        "source and host",
    )


class Otel(_Section):
    """Traces and metrics over OTLP (gRPC)."""

    traces_enabled: bool = Field(False, description="send traces")
    metrics_enabled: bool = Field(False, description="send metrics")
    collector_endpoint: str = Field("localhost", description="host of the collector")
    collector_port: int = Field(4317, ge=1, le=65535, description="port of the collector")
    timeout: int = Field(10, ge=1, description="seconds that one export may take")
    collector_use_insecure_grpc: bool = Field(False, description="no TLS to the collector")


class Aws(_Section):
    """Access to AWS. Without keys, the default credential chain is used."""

    region: str = Field("", description="region")
    access_key: SecretStr = Field(SecretStr(""), description="access key")
    secret_key: SecretStr = Field(SecretStr(""), description="secret key")
    role_arn: str = Field("", description="role to assume")
    external_id: str = Field("", description="external id that the role asks for")


class Gcp(_Section):
    """Access to GCP. Without a file, the default credentials are used."""

    region: str = Field("", description="region")
    credentials_path: str = Field("", description="file with the credentials")


class Minio(_Section):
    """Access to MinIO or another S3 server."""

    endpoint: str = Field("", description="host and port")
    access_key: SecretStr = Field(SecretStr(""), description="access key")
    secret_key: SecretStr = Field(SecretStr(""), description="secret key")
    use_ssl: bool = Field(False, description="use TLS")


class Engine(_Section):
    """Limits of the work on events."""

    concurrency: int = Field(
        32, ge=1, le=1024, description="events worked on at a time (one per target)"
    )
    action_timeout_seconds: float = Field(
        60,
        gt=0,
        le=86400,
        description="seconds that one action may take, unless its rule says otherwise (`timeout`)",
    )
    max_attempts: int = Field(
        5,
        ge=1,
        le=1000,
        description="interrupted runs (crash, lost bus, shutdown) after which an event becomes a "
        "dead letter",
    )


def _check_protected(entry: str) -> str:
    Protected((entry,))
    return entry


class Guard(_Section):
    """What bounds the harm that rules can do."""

    protected: Annotated[
        tuple[Annotated[str, AfterValidator(_check_protected)], ...], BeforeValidator(_split)
    ] = Field(
        PROTECTED,
        json_schema_extra={"allowed": "a list of namespaces, `@own`, resource/name, resource/*"},
        description="what no action terminates, evicts, deletes, cordons or cuts off: a namespace "
        "with everything in it, `@own` for the one that the daemon runs in, a single object "
        "(`namespaces/default`, `nodes/control-plane-1`) or a whole resource (`clusterroles/*`)",
    )


class Nats(_Section):
    """The NATS server that keeps the events: one that the daemon runs, or an external one."""

    url: _Names = Field(
        (),
        description="servers of an external NATS with JetStream (`nats://host:4222`, `tls://…`), "
        "which several replicas share; empty: the daemon runs its own",
    )
    user: str = Field("", description="user at the external NATS")
    password: SecretStr = Field(SecretStr(""), description="its password")
    token: SecretStr = Field(SecretStr(""), description="token, in place of user and password")
    nkey_seed_file: Path | None = Field(
        None, description="file with the seed of our nkey, in place of user and password"
    )
    credentials_file: Path | None = Field(
        None, description="`.creds` file (JWT and seed), in place of user and password"
    )
    ca_file: Path | None = Field(
        None, description="certificates to trust, in place of the system's"
    )
    cert_file: Path | None = Field(None, description="our certificate")
    key_file: Path | None = Field(None, description="its key, if it is not in the same file")
    replicas: int = Field(
        1, ge=1, le=5, description="servers of the external NATS that keep each event (1, 3 or 5)"
    )
    server: Path | None = Field(
        None,
        description="path of `nats-server`; unset: the one on PATH, else the installed package's",
    )
    shared_secret_file: Path | None = Field(
        None,
        description="file with a secret (16 bytes or more) that all replicas share; with it and "
        "`deduplication.leader_election`, the daemon's own server lets them in on `peer_port`",
    )
    peer_port: int = Field(
        4222, ge=1, le=65535, description="port for the other replicas; unused without them"
    )
    peer_address: str = Field(
        "",
        pattern=r"^[^\s,/@_]*$",
        description="host, or host:port, by which they reach this replica; empty: the variable "
        "`POD_IP`, else the address of this machine",
    )
    store_dir: Path | None = Field(
        None,
        description="folder of the stream; unset: `/var/lib/falco-talon` if it is writable, else "
        "`$XDG_STATE_HOME/falco-talon` (`~/.local/state/falco-talon`)",
    )
    max_bytes: ByteSize = Field(
        ByteSize(1024**3), ge=1, description="bytes of events that may wait; more is refused (503)"
    )
    retention_seconds: int = Field(
        24 * 3600,
        ge=1,
        description="an event whose turn comes later than so many seconds after it was accepted "
        "becomes a dead letter",
    )
    sync: Annotated[Literal["always", "interval"], BeforeValidator(_lower)] = Field(
        "interval",
        description="when events reach the disk: `always`, before the sender is answered; "
        "`interval`, soon (they survive a crash of the program, not of the machine)",
    )

    def store_folder(self, environ: Mapping[str, str] = os.environ) -> Path:
        """Return the folder of the stream: the one set, else the first that fits this machine.

        It may not exist yet, unless it is ``/var/lib/falco-talon``.
        """
        if self.store_dir is not None:
            return self.store_dir
        if _STATE_DIR.is_dir() and os.access(_STATE_DIR, os.W_OK | os.X_OK):
            return _STATE_DIR
        state = environ.get("XDG_STATE_HOME", "")
        # The XDG rules: a relative path counts as unset.
        home = Path(state) if Path(state).is_absolute() else Path.home() / ".local/state"
        return home / "falco-talon"


class Config(_Section):
    """The whole configuration: frozen, valid, complete."""

    listen_address: str = Field("0.0.0.0", description="address to listen on")  # noqa: S104
    listen_port: int = Field(2803, ge=0, le=65535, description="port to listen on; 0: any free one")
    rules_files: _Paths = Field(
        (Path("/etc/falco-talon/rules.yaml"),), description="rule files, merged in this order"
    )
    kubeconfig: str = Field("", description="kubeconfig file; empty: the cluster the pod runs in")
    log_format: Annotated[Literal["json", "text", "color"], BeforeValidator(_lower)] = Field(
        "color", description="layout of the log lines"
    )
    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_level)] = (
        Field("info", description="least important lines to print")
    )
    default_notifiers: _Names = Field((), description="notifiers of every rule")
    watch_rules: bool = Field(True, description="load the rule files again when they change")
    print_all_events: bool = Field(False, description="log events that match no rule, too")
    publish_unmatched: bool = Field(
        False, description="put events that no rule can match on the bus, too"
    )
    max_body_bytes: ByteSize = Field(
        ByteSize(1024**2),
        ge=1,
        le=32 * 1024**2,  # nats-server takes no message above 64 MiB
        description="largest request body; more is refused (413)",
    )
    shutdown_grace_seconds: float = Field(
        25, ge=0, le=86400, description="seconds that running actions get to end at shutdown"
    )
    deduplication: Deduplication = Deduplication()
    engine: Engine = Engine()
    guard: Guard = Guard()
    nats: Nats = Nats()
    otel: Otel = Otel()
    aws: Aws = Aws()
    gcp: Gcp = Gcp()
    minio: Minio = Minio()
    notifiers: Mapping[str, NotifierSettings] = Field(
        default_factory=dict,
        description="settings of the notifiers, by name; see the page of the notifiers",
    )

    @classmethod
    def load(
        cls,
        file: Path | None,
        *,
        rules: Sequence[Path] | None = None,
        environ: Mapping[str, str],
        notifiers: Mapping[str, Sequence[str]] | None = None,
    ) -> Self:
        """Read the configuration: *rules* over environment over file over default.

        *notifiers* names the settings of each notifier, for the variables that set them; those
        that stand in the file have their variables anyway.

        :raises ConfigError: with every fault, one a line, if anything is wrong.
        """
        document = read_document(file) if file else Document("")
        values = _without_empty(document.values)
        variables = overlay(cls, values, environ, notifiers or {})
        if rules:
            values["rules_files"] = list(rules)
            variables.pop(("rules_files",), None)
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            faults = describe(error, cls, values, document, variables)
            raise ConfigError("\n".join(faults)) from None


def _without_empty(values: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out our own keys with an empty text: ``region: ""`` means the default, like null."""
    kept: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and key != "notifiers":
            kept[key] = _without_empty(value)
        elif value != "":
            kept[key] = value
    return kept
