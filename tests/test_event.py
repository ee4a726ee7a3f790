"""Decoding and the look-ups of an event."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falco_talon.errors import InvalidEventError
from falco_talon.event import Event, trim_output

FALCO = {
    "hostname": "node-1",
    "output": "10:12:13.123456789: Notice A shell was spawned (user=root ä\n\"quoted\" 'x')",
    "priority": "Notice",
    "rule": "Terminal shell in container",
    "source": "syscall",
    "tags": ["container", "mitre_execution"],
    "time": "2026-11-21T10:12:13.123456789Z",
    "output_fields": {
        "evt.time": 1763719933123456789,
        "k8s.ns.name": "default",
        "k8s.pod.name": "web",
        "fd.rport": 443,
        "proc.tty": 34816,
        "proc.aname[2]": None,
    },
}


def body(**changes: Any) -> bytes:
    return json.dumps(FALCO | changes).encode()


def test_every_field_is_decoded() -> None:
    """What Falco sends arrives, its own prefix off the output, 64-bit integers exact."""
    event = Event.from_body(body()).with_trace_id("f" * 32)

    assert event.output == "A shell was spawned (user=root ä\n\"quoted\" 'x')"
    assert (event.rule, event.priority, event.source) == (
        "Terminal shell in container",
        "Notice",
        "syscall",
    )
    assert event.output_fields is not None
    assert event.output_fields["evt.time"] == 1763719933123456789
    assert event.time == datetime(2026, 11, 21, 10, 12, 13, 123457, tzinfo=UTC)
    assert event.trace_id == "f" * 32


def test_da_14_integers_stay_exact_on_the_bus() -> None:
    """No integer becomes a float between reception and actions, however large."""
    fields = {"ns": 1763719933123456789, "u64": 2**64, "big": 10**30, "neg": -(2**63), "f": 1.5}
    event = Event.from_body(body(output_fields=fields))

    again = Event.from_message(event.to_json())

    assert again == event
    assert again.output_fields == fields
    assert b"1763719933123456789" in event.to_json()


def test_the_json_has_every_key_in_order() -> None:
    """The message of the bus, which is also the payload of functions, leaves no key out."""
    assert list(json.loads(Event().to_json())) == [
        "trace_id",
        "output",
        "priority",
        "rule",
        "hostname",
        "time",
        "source",
        "output_fields",
        "context",
        "tags",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "10:12:13.123456789: Informational Packet tool launched",
        "10:12:13.123456789: INFO Packet tool launched",
        "10:12:13.123456789: Warning Packet tool launched",
        "2026-11-21T10:12:13.123456789Z: Error Packet tool launched",
        "2026-11-21T10:12:13.123456789+0000: Critical Packet tool launched",
        "2026-11-21T10:12:13+01:00: Debug Packet tool launched",
        "Packet tool launched",
    ],
)
def test_da_12_the_prefix_is_cut_whole(text: str) -> None:
    """Both time formats and every priority are cut, `Informational` not at `Info`."""
    assert trim_output(text) == "Packet tool launched"


@pytest.mark.parametrize(
    "text",
    ["10:12:13.123456789: Informationally Packet", "x 10:12:13.123456789: Info y", " leading"],
)
def test_what_is_no_prefix_stays(text: str) -> None:
    """Only Falco's own prefix goes."""
    assert trim_output(text) == text


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param({"source": ""}, "syscall", id="empty"),
        pytest.param({"source": None}, "syscall", id="null"),
        pytest.param({"source": "syscalls"}, "syscalls", id="falcosidekick"),
        pytest.param({"source": "k8s_audit"}, "k8s_audit", id="audit"),
    ],
)
def test_source(change: dict[str, Any], expected: str) -> None:
    """An event without a source is a system call."""
    assert Event.from_body(body(**change)).source == expected


def test_keys_of_any_case_and_foreign_keys() -> None:
    """Keys are matched whatever their case; what is not ours is dropped."""
    event = Event.from_body(b'{"Rule": "r", "OUTPUT": "o", "uuid": "u", "Tags": ["t"]}')

    assert (event.rule, event.output, event.tags) == ("r", "o", ["t"])


def test_ac_34_a_context_from_outside_is_dropped() -> None:
    """Only the daemon says what the context is."""
    event = Event.from_body(body(context={"falco-talon.rule": "forged"}, trace_id="forged"))

    assert event.context is None
    assert event.trace_id == ""


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(b"", "not valid JSON", id="empty"),
        pytest.param(b"   ", "not valid JSON", id="blank"),
        pytest.param(b'{"rule": "r"', "not valid JSON", id="truncated"),
        pytest.param(b'{"rule": "\xff"}', "not valid JSON", id="not UTF-8"),
        pytest.param(b'{"output": "\\ud800"}', "not valid JSON", id="lone surrogate"),
        pytest.param(b"\xef\xbb\xbf{}", "not valid JSON", id="byte order mark"),
        pytest.param(b"null", "not a JSON object but null", id="null"),
        pytest.param(b"[1]", "not a JSON object but an array", id="array"),
        pytest.param(b'"x"', "not a JSON object but a string", id="string"),
        pytest.param(b"{} {}", "not valid JSON", id="two objects"),
        pytest.param(b'{"output_fields": {"x": NaN}}', "not valid JSON", id="NaN"),
        pytest.param(b'{"output_fields": {"x": 1e999}}', "not valid JSON", id="infinite"),
        pytest.param(b'{"rule": 5}', "'rule' must be a string, not a number", id="rule"),
        pytest.param(b'{"output": {}}', "'output' must be a string, not an object", id="output"),
        pytest.param(b'{"tags": "a"}', "'tags' must be an array, not a string", id="tags"),
        pytest.param(
            b'{"output_fields": []}', "'output_fields' must be an object, not an array", id="fields"
        ),
        pytest.param(b'{"time": 5}', "'time' must be an RFC 3339 text, not a number", id="time"),
        pytest.param(b'{"time": "noon"}', "found 'noon'", id="time text"),
        pytest.param(b"[" * 200_000, "nested too deeply", id="very deep"),
        pytest.param(b'{"a":' * 200_000, "nested too deeply", id="very deep objects"),
    ],
)
def test_what_is_no_event_is_refused_with_the_reason(data: bytes, reason: str) -> None:
    """Nothing but a JSON object with the right types passes."""
    with pytest.raises(InvalidEventError, match=reason.replace("[", r"\[")):
        Event.from_body(data)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"{}", id="empty object"),
        pytest.param(b'{"rule": "a", "rule": "b"}', id="duplicate key"),
        pytest.param(b' {"output_fields": null, "tags": null, "time": null} \n', id="nulls"),
        pytest.param(b'{"output_fields": {"x":' + b"[" * 10 + b"]" * 10 + b"}}", id="10 deep"),
        pytest.param(b'{"output_fields": {"x": 18446744073709551616}}', id="2^64"),
    ],
)
def test_what_is_odd_but_valid_is_accepted(data: bytes) -> None:
    """Valid JSON of the right types is an event, and survives the bus."""
    event = Event.from_body(data)

    assert Event.from_message(event.to_json()) == event


@pytest.mark.parametrize(
    ("fields", "pod", "namespace"),
    [
        pytest.param({"k8s.pod.name": "p", "k8s.ns.name": "n"}, "p", "n", id="syscall"),
        pytest.param({"ka.target.name": "p", "ka.target.namespace": "n"}, "p", "n", id="audit"),
        pytest.param(
            {"ka.target.pod.name": "p", "ka.target.name": "x"}, "p", "", id="audit pod name first"
        ),
        pytest.param({"k8s.pod.name": "", "ka.target.name": "p"}, "", "", id="empty ends search"),
        pytest.param({"k8s.pod.name": None, "ka.target.name": "p"}, "p", "", id="null is absent"),
        pytest.param({"k8s.pod.name": 12}, "12", "", id="number"),
        pytest.param({"k8s.pod.name": True}, "", "", id="boolean is absent"),
        pytest.param({"k8s.pod.name": ["p"]}, "", "", id="list is absent"),
        pytest.param(None, "", "", id="no fields"),
    ],
)
def test_pod_and_namespace(fields: dict[str, Any] | None, pod: str, namespace: str) -> None:
    """The pod and the namespace are found where syscall and audit events have them."""
    event = Event(output_fields=fields)

    assert (event.pod, event.namespace) == (pod, namespace)


def test_remote_end() -> None:
    """The remote end is `fd.r*`, else `fd.s*`; numbers are plain decimals."""
    event = Event(output_fields={"fd.sip": "1.2.3.4", "fd.rport": 1000000, "fd.sproto": 80.0})

    assert (event.remote_ip, event.remote_port, event.remote_protocol) == (
        "1.2.3.4",
        "1000000",
        "80",
    )


@pytest.mark.parametrize(
    ("event", "target"),
    [
        pytest.param(
            Event(hostname="h", output_fields={"k8s.pod.name": "p", "k8s.ns.name": "n"}),
            ("pod", "n/p"),
            id="pod",
        ),
        pytest.param(
            Event(hostname="h", output_fields={"k8s.node.name": "x"}), ("node", "x"), id="node"
        ),
        pytest.param(Event(hostname="h"), ("host", "h"), id="host"),
    ],
)
def test_target(event: Event, target: tuple[str, str]) -> None:
    """An event is about its pod, else its node, else its host."""
    assert event.target == target


def test_the_hash_goes_by_the_trimmed_output() -> None:
    """Equal alerts of different times have one hash; the opt-in key tells their rules apart."""
    first = Event.from_body(body())
    later = Event.from_body(body(output=FALCO["output"].replace("10:12:13", "11:00:00")))  # type: ignore[attr-defined]
    other = Event.from_body(body(rule="Another rule"))

    assert first.output_hash == later.output_hash == other.output_hash
    assert first.event_hash == later.event_hash != other.event_hash


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(json_values)
def test_any_json_is_an_event_or_a_reason(value: Any) -> None:
    """No JSON document crashes the decoder; what it accepts survives the bus."""
    try:
        data = json.dumps(value).encode()
        event = Event.from_body(data)
    except InvalidEventError as error:
        assert str(error)
    else:
        assert Event.from_message(event.to_json()) == event


@given(st.dictionaries(st.text(), json_values))
def test_any_fields_survive_the_bus(fields: dict[str, Any]) -> None:
    """Whatever Falco's fields hold arrives at the actions unchanged, surrogates refused."""
    try:
        event = Event.from_body(json.dumps({"output_fields": fields}).encode())
    except InvalidEventError:
        assert any(0xD800 <= ord(char) <= 0xDFFF for char in repr(fields))
        return
    assert Event.from_message(event.to_json()).output_fields == fields
    assert isinstance(event.pod + event.namespace + event.remote_ip, str)
    assert event.output_hash


@given(st.binary(max_size=200))
def test_any_bytes_are_an_event_or_a_reason(data: bytes) -> None:
    """No body crashes the decoder."""
    try:
        Event.from_body(data)
    except InvalidEventError as error:
        assert str(error)
