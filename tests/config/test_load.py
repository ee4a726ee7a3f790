"""From file, environment and command line to a valid configuration, or to clear faults."""

import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from falco_talon.config import Config, NotifierSettings
from falco_talon.config.model import Guard
from falco_talon.errors import ConfigError
from falco_talon.plugin import BaseParameters
from falco_talon.protected import PROTECTED
from tests.config.conftest import Write

CHART = Path(__file__).with_name("reference-chart.yaml")


def faults(path: Path | None, environ: dict[str, str] | None = None) -> list[str]:
    """Load what is wrong; return the lines of the error, without the name of the file."""
    with pytest.raises(ConfigError) as caught:
        Config.load(path, environ=environ or {})
    name = f"{path}:" if path else ""
    return [line.removeprefix(name).strip() for line in str(caught.value).splitlines()]


def test_nothing_gives_the_defaults() -> None:
    config = Config.load(None, environ={})

    assert config == Config()
    assert (config.listen_address, config.listen_port) == ("0.0.0.0", 2803)
    assert config.rules_files == (Path("/etc/falco-talon/rules.yaml"),)
    assert config.deduplication.time_window_seconds == 5
    assert config.otel.collector_port == 4317
    assert config.nats.max_bytes == 1024**3


def test_the_configuration_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        Config().listen_port = 1  # type: ignore[misc]


class TestPrecedence:
    def test_environment_over_file_over_default(self, write: Write) -> None:
        path = write("c.yaml", "listen_port: 1111\nlog_format: json\nlog_level: error\n")
        config = Config.load(
            path, environ={"FALCO_TALON_LISTEN_PORT": "2222", "LOG_LEVEL": "debug"}
        )

        assert (config.listen_port, config.log_format, config.log_level) == (2222, "json", "debug")
        assert config.listen_address == "0.0.0.0"

    def test_command_line_over_all_for_rules(self, write: Write) -> None:
        path = write("c.yaml", "rules_files: [file.yaml]\n")
        environ = {"FALCO_TALON_RULES_FILES": "environment.yaml"}

        assert Config.load(path, environ={}).rules_files == (Path("file.yaml"),)
        assert Config.load(path, environ=environ).rules_files == (Path("environment.yaml"),)
        config = Config.load(path, rules=[Path("a,b.yaml"), Path("c.yaml")], environ=environ)
        assert config.rules_files == (Path("a,b.yaml"), Path("c.yaml"))

    def test_one_key_of_a_section(self, write: Write) -> None:
        path = write("c.yaml", "otel: {timeout: 3, collector_endpoint: file}\n")
        config = Config.load(path, environ={"FALCO_TALON_OTEL_COLLECTOR_ENDPOINT": "env"})

        assert (config.otel.timeout, config.otel.collector_endpoint) == (3, "env")


class TestWeakTypes:
    @pytest.mark.parametrize(
        ("text", "key", "value"),
        [
            ('listen_port: "2804"', "listen_port", 2804),
            ("watch_rules: 'false'", "watch_rules", False),
            ("watch_rules: off", "watch_rules", False),
            ("print_all_events: 1", "print_all_events", True),
            ("default_notifiers: a, b", "default_notifiers", ("a", "b")),
            ("default_notifiers: a", "default_notifiers", ("a",)),
            ("default_notifiers: ''", "default_notifiers", ()),
            ("log_format: JSON", "log_format", "json"),
            ("log_level: WARN", "log_level", "warning"),
            ("LISTEN_Port: 1", "listen_port", 1),
            ("max_body_bytes: 2KiB", "max_body_bytes", 2048),
            ("max_body_bytes: 2048", "max_body_bytes", 2048),
            ("kubeconfig: 12", "kubeconfig", "12"),
            ("kubeconfig: 2001-01-01", "kubeconfig", "2001-01-01"),
            ("kubeconfig: yes", "kubeconfig", "yes"),
            ("shutdown_grace_seconds: 0.5", "shutdown_grace_seconds", 0.5),
        ],
    )
    def test_converted(self, write: Write, text: str, key: str, value: object) -> None:
        assert getattr(Config.load(write("c.yaml", text), environ={}), key) == value

    @pytest.mark.parametrize("nothing", ["", "null", "~", "''"])
    def test_nothing_means_the_default(self, write: Write, nothing: str) -> None:
        text = f"listen_port: {nothing}\naws:\n  region: {nothing}\nrules_files: {nothing}\n"

        assert Config.load(write("c.yaml", text), environ={}) == Config()

    @pytest.mark.parametrize("section", ["aws:", "aws: {}", "notifiers:", "notifiers: {}"])
    def test_an_empty_section_means_its_defaults(self, write: Write, section: str) -> None:
        assert Config.load(write("c.yaml", section), environ={}) == Config()

    def test_the_same_in_each_format(self, write: Write) -> None:
        yaml = "listen_port: 1\nwatch_rules: no\nminio: {access_key: k, use_ssl: true}\n"
        json = (
            '{"listen_port": 1, "watch_rules": false, "Minio": {"access_key": "k", "use_ssl": 1}}'
        )
        toml = 'listen_port = "1"\nwatch_rules = false\n[minio]\naccess_key = "k"\nuse_ssl = true\n'
        loaded = [
            Config.load(write(name, text), environ={})
            for name, text in [("c.yml", yaml), ("c.json", json), ("c.toml", toml)]
        ]

        assert loaded[0] == loaded[1] == loaded[2]
        assert loaded[0].minio.access_key == SecretStr("k")


class TestReferenceChart:
    def test_its_file_is_the_defaults(self) -> None:
        config = Config.load(CHART, environ={"LOG_LEVEL": "warning"})
        expected = Config(default_notifiers=("k8sevents",), log_level="warning")

        assert config.model_copy(update={"notifiers": {}}) == expected

    def test_settings_that_are_not_set_are_left_out(self) -> None:
        notifiers = Config.load(CHART, environ={}).notifiers

        assert dict(notifiers["webhook"]) == {}
        assert dict(notifiers["loki"]) == {}
        assert dict(notifiers["smtp"]) == {"format": "html", "tls": "false"}


class TestFaults:
    def test_all_at_once_in_the_order_of_the_file(self, write: Write) -> None:
        path = write(
            "c.yaml",
            "listen_prot: 1\n"
            "listen_port: 65536\n"
            "deduplication:\n"
            "  key: rule\n"
            "  time_window_seconds: -1\n"
            "aws: AKIA-not-shown\n"
            "notifiers:\n"
            "  slack: https://hooks.example.com/not-shown\n",
        )

        assert faults(path, {"FALCO_TALON_ENGINE_CONCURRENCY": "1025"}) == [
            "environment variable FALCO_TALON_ENGINE_CONCURRENCY: engine.concurrency: "
            "found '1025', allowed: a whole number from 1 to 1024",
            "1: listen_prot: unknown key, did you mean 'listen_port'?",
            "2: listen_port: found '65536', allowed: a whole number from 0 to 65535",
            "4: deduplication.key: found 'rule', allowed: one of output, event",
            "5: deduplication.time_window_seconds: found '-1', allowed: a whole number from 0 up",
            "6: aws: found a single value, allowed: a section with keys and values",
            "8: notifiers.slack: found a single value, allowed: a section with keys and values",
        ]

    @pytest.mark.parametrize(
        ("text", "fault"),
        [
            ("otel: {collector: x}", "otel.collector: unknown key, did you mean"),
            ("leader_election: true", "did you mean 'deduplication.leader_election'?"),
            ("otel_timeout: 3", "did you mean 'otel.timeout'?"),
            ("gcp: {qqq: 1}", "gcp.qqq: unknown key, allowed: credentials_path, region"),
            ("qqq: 1", "qqq: unknown key, allowed: aws, deduplication, default_notifiers"),
            ("region: x", "region: unknown key, allowed:"),
            ("log_format: xml", "found 'xml', allowed: one of json, text, color"),
            ("watch_rules: maybe", "found 'maybe', allowed: true or false"),
            ("max_body_bytes: 0", "found '0', allowed: a size in bytes"),
            ("max_body_bytes: much", "found 'much', allowed: a size in bytes"),
            ("engine: {action_timeout_seconds: 0}", "a number above 0 to 86400"),
            ("engine: {action_timeout_seconds: .nan}", "found '.nan'"),
            ("engine: {action_timeout_seconds: nan}", "found 'nan'"),
            ("shutdown_grace_seconds: inf", "found 'inf'"),
            ("listen_port: [1]", "listen_port: found a list"),
            ("rules_files: {a: 1}", "rules_files: found a section, allowed: a list of paths"),
            ("default_notifiers: [{a: 1}]", "default_notifiers.0: found a section"),
            ("nats: {sync: never}", "one of always, interval"),
            ("notifiers: x", "notifiers: found a single value"),
        ],
    )
    def test_text(self, write: Write, text: str, fault: str) -> None:
        (line,) = faults(write("c.yaml", text))

        assert fault in line
        assert line.startswith("1: ")

    def test_the_variable_is_named(self) -> None:
        (line,) = faults(None, {"LISTEN_PORT": "x"})

        assert line.startswith("environment variable LISTEN_PORT: listen_port: found 'x'")

    def test_hostile_values_stay_on_their_line(self, write: Write) -> None:
        (line,) = faults(write("c.yaml", 'log_format: "a\\nb\\e[31m' + "x" * 500 + '"'))

        assert r"found 'a\nb\x1b[31mxxx" in line
        assert len(line) < 200

    @given(st.text(max_size=20), st.text(max_size=20))
    def test_any_key_and_value_load_or_are_faults(self, key: str, value: str) -> None:
        try:
            Config.load(None, environ={"FALCO_TALON_LISTEN_PORT": value, key: value})
        except ConfigError as error:
            assert len(str(error).splitlines()) == 1


class TestSecrets:
    TEXT = (
        "aws: {access_key: hush-1, secret_key: hush-2}\n"
        "minio: {access_key: hush-3, secret_key: hush-4}\n"
        "notifiers: {slack: {webhook_url: hush-5, custom_headers: {A: hush-6}}}\n"
    )

    def test_hidden_when_shown(self, write: Write) -> None:
        config = Config.load(
            write("c.yaml", self.TEXT), environ={"FALCO_TALON_AWS_SECRET_KEY": "hush"}
        )

        for shown in (
            repr(config),
            str(config),
            config.model_dump_json(),
            str(config.model_dump()),
        ):
            assert "hush" not in shown
        assert config.aws.secret_key.get_secret_value() == "hush"

    @pytest.mark.parametrize(
        "text",
        [
            "aws: {secret_key: {hush: 1}}",
            "aws: {secret_key: [hush]}",
            "minio: {secret_key: {a: hush}}",
            "aws: [hush]",
            "minio: hush",
            "aws: {secret_kee: hush}",
            "notifiers: {slack: hush}",
            "notifiers: [hush]",
            "aws: {secret_key: *hush}",
            "aws: {secret_key: !hush x}",
            "aws: {secret_key: 'hush",
            "aws: {secret_key: hush: x}",
            "aws: {secret_key: hush, secret_key: hush}",
            "aws: {secret_key: @hush}",
            "aws: {secret_key: %hush}",
        ],
    )
    def test_never_in_an_error(self, write: Write, text: str) -> None:
        with pytest.raises(ConfigError) as caught:
            Config.load(write("c.yaml", text), environ={})

        shown = str(caught.value).replace("aws.secret_key.hush", "")
        assert "hush" not in shown
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None or caught.value.__suppress_context__


class TestNotifierSettings:
    def test_a_model_takes_them(self, write: Write) -> None:
        class Parameters(BaseParameters):
            url: str
            tls: bool = True
            custom_headers: dict[str, str]

        text = "notifiers: {Webhook: {URL: u, TLS: no, custom_headers: {X-Id: 012, x-id: b}}}\n"
        settings = Config.load(write("c.yaml", text), environ={}).notifiers["webhook"]
        parameters = Parameters.model_validate(settings)

        assert parameters.custom_headers == {"X-Id": "012", "x-id": "b"}
        assert (parameters.url, parameters.tls) == ("u", False)

    def test_they_survive_a_process_border(self) -> None:
        config = Config(notifiers={"slack": NotifierSettings({"webhook_url": "u"})})

        assert pickle.loads(pickle.dumps(config)) == config


class TestStoreFolder:
    def test_the_one_that_is_set(self, tmp_path: Path) -> None:
        config = Config.load(None, environ={"FALCO_TALON_NATS_STORE_DIR": str(tmp_path)})

        assert config.nats.store_folder({}) == tmp_path

    @pytest.mark.parametrize(
        ("state", "expected"),
        [
            ("/state", Path("/state/falco-talon")),
            ("relative", Path("/home/x/.local/state/falco-talon")),
            ("", Path("/home/x/.local/state/falco-talon")),
        ],
    )
    def test_else_by_the_rules_of_xdg(
        self, state: str, expected: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("falco_talon.config.model._STATE_DIR", tmp_path / "absent")
        monkeypatch.setenv("HOME", "/home/x")

        assert Config().nats.store_folder({"XDG_STATE_HOME": state}) == expected

    def test_else_the_system_folder_if_it_is_writable(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("falco_talon.config.model._STATE_DIR", tmp_path)

        assert Config().nats.store_folder({}) == tmp_path


class TestGuard:
    def test_the_default_is_the_one_list(self) -> None:
        assert Config().guard.protected == PROTECTED

    def test_what_is_written_replaces_it(self, write: Write) -> None:
        path = write("c.yaml", 'guard: {protected: [kube-system, "@own", nodes/a]}')
        assert Config.load(path, environ={}).guard.protected == ("kube-system", "@own", "nodes/a")
        assert Config.load(write("d.yaml", "guard: {protected: []}"), environ={}).guard == Guard(
            protected=()
        )
        environ = {"FALCO_TALON_GUARD_PROTECTED": "a, secrets/*"}
        assert Config.load(path, environ=environ).guard.protected == ("a", "secrets/*")

    @pytest.mark.parametrize("entry", ["A", "a b", "a/b/c", "/a", "*", "*/*", "@other", "a/"])
    def test_what_is_no_entry(self, entry: str, write: Write) -> None:
        path = write("c.yaml", f'guard:\n  protected: [a, "{entry}"]')
        assert faults(path) == [
            f"2: guard.protected.1: found '{entry}', allowed: a list of namespaces, `@own`,"
            " resource/name, resource/*"
        ]
        assert faults(None, {"FALCO_TALON_GUARD_PROTECTED": f"a,{entry}"})
