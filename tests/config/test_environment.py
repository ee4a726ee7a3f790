"""Variables: their names come from the model, and others are nobody's fault."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falco_talon.config import Config
from falco_talon.config.environment import PREFIX, variable_names
from falco_talon.config.fields import keys
from tests.config.conftest import Write

INJECTED = {
    "FALCO_TALON_PORT": "tcp://10.0.0.1:2803",
    "FALCO_TALON_PORT_2803_TCP": "tcp://10.0.0.1:2803",
    "FALCO_TALON_PORT_2803_TCP_ADDR": "10.0.0.1",
    "FALCO_TALON_PORT_2803_TCP_PORT": "2803",
    "FALCO_TALON_PORT_2803_TCP_PROTO": "tcp",
    "FALCO_TALON_SERVICE_HOST": "10.0.0.1",
    "FALCO_TALON_SERVICE_PORT": "2803",
    "FALCO_TALON_SERVICE_PORT_HTTP": "2803",
    "FALCO_TALON_OTEL_COLLECTOR_PORT": "tcp://10.0.0.2:4317",
    "OTEL_COLLECTOR_PORT": "tcp://10.0.0.3:4317",
}


def test_what_kubernetes_injects_changes_nothing() -> None:
    assert Config.load(None, environ=INJECTED) == Config()


def test_no_key_has_the_name_of_an_injected_variable() -> None:
    names = {name for key in keys(Config) for name in variable_names(key.path)}

    assert not {name for name in names if name.startswith((f"{PREFIX}PORT", f"{PREFIX}SERVICE_"))}


def test_no_two_keys_share_a_variable() -> None:
    names = [name for key in keys(Config) for name in variable_names(key.path)]

    assert len(names) == len(set(names))


def test_every_key_can_be_set() -> None:
    """A value that fits each kind of key; that it is taken shows in a fault or a change."""
    values = {
        "a list of paths": "x.yaml",
        "a list of names": "x",
        "text": "x",
        "a path": "/x",
        "true or false": "maybe",
        "one of": "x",
        "a whole number": "x",
        "a number": "x",
        "a size": "x",
    }
    for key in keys(Config):
        value = next(value for kind, value in values.items() if key.allowed.startswith(kind))
        try:
            config = Config.load(None, environ={variable_names(key.path)[0]: value})
        except Exception as error:  # noqa: BLE001 - its text is what is looked at
            assert f"{key.dotted}: found '{value}'" in str(error)
        else:
            assert config != Config(), key.dotted


@pytest.mark.parametrize(
    "name",
    [
        "LISTEN_ADDRESS",
        "LISTEN_PORT",
        "RULES_FILES",
        "KUBECONFIG",
        "LOG_FORMAT",
        "LOG_LEVEL",
        "DEFAULT_NOTIFIERS",
        "WATCH_RULES",
        "PRINT_ALL_EVENTS",
        "DEDUPLICATION_LEADER_ELECTION",
        "DEDUPLICATION_TIME_WINDOW_SECONDS",
        "OTEL_TRACES_ENABLED",
        "OTEL_METRICS_ENABLED",
        "OTEL_COLLECTOR_ENDPOINT",
        "OTEL_COLLECTOR_PORT",
        "OTEL_TIMEOUT",
        "OTEL_COLLECTOR_USE_INSECURE_GRPC",
        "AWS_REGION",
        "AWS_ACCESS_KEY",
        "AWS_SECRET_KEY",
        "AWS_ROLE_ARN",
        "AWS_EXTERNAL_ID",
        "GCP_REGION",
        "GCP_CREDENTIALS_PATH",
        "MINIO_ENDPOINT",
        "MINIO_ACCESS_KEY",
        "MINIO_SECRET_KEY",
        "MINIO_USE_SSL",
    ],
)
def test_names_of_the_reference(name: str) -> None:
    names = {bare for key in keys(Config) for bare in variable_names(key.path)[1:]}

    assert name in names


def test_names_that_the_reference_does_not_have_need_the_prefix() -> None:
    environ = {"NATS_SERVER": "/x", "ENGINE_CONCURRENCY": "1", "MAX_BODY_BYTES": "1"}

    assert Config.load(None, environ=environ) == Config()


def test_the_prefixed_name_wins() -> None:
    config = Config.load(
        None, environ={"FALCO_TALON_KUBECONFIG": "ours", "KUBECONFIG": "of the machine"}
    )

    assert config.kubeconfig == "ours"


def test_the_prefixed_name_wins_even_over_a_wrong_one() -> None:
    environ = {"FALCO_TALON_OTEL_TIMEOUT": "3", "OTEL_TIMEOUT": "10s"}

    assert Config.load(None, environ=environ).otel.timeout == 3


def test_an_empty_variable_is_unset(write: Write) -> None:
    path = write("c.yaml", "listen_port: 1\n")

    assert Config.load(path, environ={"FALCO_TALON_LISTEN_PORT": ""}).listen_port == 1


def test_lists_are_separated_by_commas() -> None:
    config = Config.load(None, environ={"RULES_FILES": "a.yaml, b.yaml,", "DEFAULT_NOTIFIERS": "x"})

    assert config.rules_files == (Path("a.yaml"), Path("b.yaml"))
    assert config.default_notifiers == ("x",)


def test_settings_of_known_notifiers() -> None:
    environ = {"FALCO_TALON_NOTIFIERS_SLACK_WEBHOOK_URL": "a", "NOTIFIERS_MY_HOOK_URL": "b"}
    known = {"slack": ["webhook_url", "icon"], "my-hook": ["url"], "smtp": ["user"]}
    config = Config.load(None, environ=environ, notifiers=known)

    found = {name: dict(settings) for name, settings in config.notifiers.items()}
    assert found == {"slack": {"webhook_url": "a"}, "my-hook": {"url": "b"}}


def test_settings_that_stand_in_the_file(write: Write) -> None:
    path = write("c.yaml", "notifiers: {own: {token: file, other: x}}\n")
    config = Config.load(path, environ={"FALCO_TALON_NOTIFIERS_OWN_TOKEN": "secret"})

    assert dict(config.notifiers["own"]) == {"token": "secret", "other": "x"}


@given(st.dictionaries(st.text(max_size=20).map(lambda name: f"{PREFIX}X_{name}"), st.text()))
def test_other_variables_are_ignored(environ: dict[str, str]) -> None:
    assert Config.load(None, environ=environ) == Config()
