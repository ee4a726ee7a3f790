"""``python -m bench.rules``: how long `rules check` takes, and what matching costs an event.

``TALON_PEER`` names another binary whose `rules check` is measured in turn with ours.
"""

import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from falco_talon.event import Event
from falco_talon.rules.load import load
from falco_talon.rules.match import Matcher

_ROUNDS = 7
_EVENTS = 50_000

_RULE = """\
- rule: Rule {0}
  description: What is done when that happens
  match:
    rules:
      - Falco rule {0}
    output_fields:
      - k8s.ns.name!=kube-system, k8s.ns.name!=falco
    priority: ">=Warning"
    tags:
      - container, mitre_{0}
  actions:
    - action: Label {0}
      actionner: kubernetes:label
      parameters:
        labels:
          suspicious: "true"
          number: "{0}"
    - action: Terminate Pod
"""
_BLOCK = """\
- action: Terminate Pod
  actionner: kubernetes:terminate
  parameters:
    grace_period_seconds: 5
"""
_EVENT = Event(
    rule="Falco rule 3",
    priority="Warning",
    tags=["container", "mitre_3"],
    output_fields={"k8s.ns.name": "shop", "proc.pid": 1234567},
)


def rule_file(folder: Path, number: int) -> Path:
    """Write a file of so many rules, each for a Falco rule of its own."""
    file = folder / f"rules-{number}.yaml"
    file.write_text(_BLOCK + "".join(_RULE.format(index) for index in range(number)))
    return file


def check_seconds(binary: str, file: Path) -> tuple[float, float]:
    """Return how long a whole `rules check` takes: wall clock and processor."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    subprocess.run([binary, "rules", "check", "-r", file], check=True, stdout=subprocess.DEVNULL)
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def peak_mb(binary: str, file: Path) -> float:
    """Return the peak memory of a `rules check`."""
    script = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    command = [sys.executable, "-c", script, binary, "rules", "check", "-r", str(file)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout) / 1024


def match_seconds(matcher: Matcher) -> float:
    """Return the time for one event that one rule matches."""
    start = time.perf_counter()
    for _ in range(_EVENTS):
        matcher.matching(_EVENT)
    return (time.perf_counter() - start) / _EVENTS


def measure_check(binaries: dict[str, str], file: Path, number: int) -> None:
    """Print a line for each binary; they take turns, as the machine is not always the same."""
    rounds: dict[str, list[tuple[float, float]]] = {name: [] for name in binaries}
    for _ in range(_ROUNDS):
        for name, binary in binaries.items():
            rounds[name].append(check_seconds(binary, file))
    for name, taken in rounds.items():
        wall = statistics.median(wall for wall, _ in taken)
        best = min(wall for wall, _ in taken)
        processor = statistics.median(processor for _, processor in taken)
        print(
            f"{f'rules check, {number} rules, {name}':<40} median {wall:.3f} s   best {best:6.3f} s"
            f"   processor {processor:6.3f} s   {peak_mb(binaries[name], file):5.0f} MB"
        )


def main() -> None:
    """Measure on this machine."""
    binaries = {"talon": shutil.which("talon", path=str(Path(sys.executable).parent)) or "talon"}
    if peer := os.environ.get("TALON_PEER"):
        binaries["peer"] = peer
    with tempfile.TemporaryDirectory(prefix="talon-bench-") as folder:
        files = {number: rule_file(Path(folder), number) for number in (5, 100, 5000)}
        for number in (100, 5000):
            measure_check(binaries, files[number], number)
        few, many = Matcher(load([files[5]]).rules), Matcher(load([files[5000]]).rules)
    taken = [(match_seconds(few), match_seconds(many)) for _ in range(_ROUNDS)]
    with_few, with_many = (min(seconds) for seconds in zip(*taken, strict=True))
    print(
        f"{'matching an event, 5 rules / 5,000 rules':<40} {with_few * 1e6:.2f} µs / "
        f"{with_many * 1e6:.2f} µs   ratio {with_many / with_few:.2f}"
    )


if __name__ == "__main__":
    main()
