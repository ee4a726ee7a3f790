"""The documentation says what the code does."""

import re
from pathlib import Path

import pytest

from tests.documentation import DOCS, pages

ROOT = DOCS.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]


@pytest.mark.parametrize("name", ["actionners.md", "outputs.md", "notifiers.md"])
def test_the_pages_of_the_plugins(name: str) -> None:
    """They are what the classes say; `make docs` writes them anew."""
    assert (DOCS / name).read_text(encoding="utf-8") == pages()[name]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """A page that is linked to is there."""
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if not link.startswith("http"):
            assert (page.parent / link).exists(), link


def test_the_commands_of_the_readme() -> None:
    """Every make target that the pages name is there."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        named = set(re.findall(r"\bmake ([a-z-]+)\b`|^make ([a-z-]+)", page.read_text(), re.M))
        assert {first or second for first, second in named} <= targets


def test_the_plugin_of_the_guide_works() -> None:
    """What CONTRIBUTING shows is a plugin that passes the contract."""
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
    scope: dict[str, object] = {"__name__": "ping"}
    exec(compile(code, "CONTRIBUTING.md", "exec"), scope)
    assert scope["Ping"].name == "http:ping"  # type: ignore[attr-defined]
