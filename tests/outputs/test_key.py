"""The names of stored artifacts."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from falco_talon.outputs._key import object_key
from falco_talon.plugin import Artifact

STAMP = r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\dZ-[0-9a-f]{8}"


@pytest.mark.parametrize(
    ("objects", "name", "tail"),
    [
        pytest.param({"namespace": "ns", "pod": "web"}, "log", "ns_web_log", id="pod"),
        pytest.param(
            {"namespace": "ns", "pod": "web", "hostname": "h"}, "a", "ns_web_a", id="pod first"
        ),
        pytest.param({"hostname": "h", "x": "y"}, "a.pcap", "h_a.pcap", id="host"),
        pytest.param(
            {"b": "2", "a": "1", "file": "/f", "c": ""}, "log", "1_2_log", id="others, sorted"
        ),
        pytest.param({"namespace": "ns"}, "log", "ns_log", id="namespace alone"),
        pytest.param({}, "log", "log", id="nothing"),
        pytest.param({"hostname": "h"}, "/etc/shadow", "h__etc_shadow", id="path"),
        pytest.param({"hostname": "h"}, "../../etc/passwd", "h_.__.__etc_passwd", id="traversal"),
        pytest.param({"hostname": "127.0.0.1:80"}, "a\nb\0c", "127.0.0.1_80_a_b_c", id="controls"),
        pytest.param({"hostname": "h"}, "señal-日本.txt", "h_señal-日本.txt", id="letters"),
        pytest.param({"hostname": "h"}, "a\u202egpj.exe", "h_a_gpj.exe", id="right to left"),
    ],
)
def test_keys(objects: dict[str, str], name: str, tail: str) -> None:
    """A key tells when, where from and what, in the reference's order."""
    key = object_key(Artifact(name, b"", objects))
    assert re.fullmatch(f"{STAMP}_{re.escape(tail)}", key)


def test_keys_never_repeat() -> None:
    """ON-16: a thousand artifacts of one pod in one second have a thousand names."""
    artifact = Artifact("log", b"", {"namespace": "ns", "pod": "web"})
    assert len({object_key(artifact) for _ in range(1000)}) == 1000


def test_the_end_of_a_long_name_stays() -> None:
    """Of a long path the end is kept, with what kind of file it is."""
    key = object_key(Artifact("/long" * 1000 + "/core.gz", b"", {"hostname": "h"}))
    assert key.endswith("_core.gz")
    assert len(key) < 256


@given(
    name=st.text(max_size=300) | st.text("./\\\n\0", min_size=1, max_size=50),
    objects=st.dictionaries(
        st.sampled_from(["namespace", "pod", "hostname", "file", "x"]), st.text(max_size=300)
    ),
)
def test_no_key_leads_elsewhere(name: str, objects: dict[str, str]) -> None:
    """Whatever it is made of, a key is one file name that any file system takes."""
    key = object_key(Artifact(name, b"", objects))
    assert re.match(STAMP, key)
    assert len(key.encode()) <= 255
    assert ".." not in key
    assert not set(key) & set("/\\ \n\0:*?\"'<>|$`~")
    assert key.isprintable()
