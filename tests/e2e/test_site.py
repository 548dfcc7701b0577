"""docs/ as a site: it builds without a warning, asks no other host, and its made pages are not stale."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import beatline

ROOT = Path(__file__).parents[2]
DOCS, PACKAGE = ROOT / "docs", ROOT / "src/beatline"
ENVIRONMENT = {
    **os.environ,
    "NO_MKDOCS_2_WARNING": "1",  # of mkdocs-material, about a version of MkDocs that is not installed
    "PYTHONPATH": str(Path(beatline.__file__).parents[1]),
}
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("site")]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_page_is_built(site):
    pages = {path.relative_to(DOCS).with_suffix(".html") for path in DOCS.rglob("*.md")}
    assert {path.relative_to(site) for path in site.rglob("*.html")} == pages | {Path("404.html")}


def test_a_page_asks_no_other_host(site):
    for page in site.rglob("*.html"):
        asked = re.findall(
            r"<(?:script|link|img|iframe|source)\b[^>]*(?:src|href)=\W?(?:https?:)?//", page.read_text()
        )
        assert not asked, page
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\W*(https?:)?//", sheet.read_text()), sheet


def test_the_reference_has_everything_public(site):
    text = (site / "api.html").read_text()
    for name in set(beatline.__all__) - {"__version__"}:
        assert re.search(rf'id="beatline\.(?:\w+\.)*{name}"', text), name


def test_the_page_of_commands_is_not_stale():
    done = subprocess.run(
        [sys.executable, "docs/make_commands.py", "--check"],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_links_between_files_that_are_no_pages_lead_somewhere():
    """mkdocs checks its own pages only."""
    for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"):
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", (ROOT / name).read_text()):
            assert (ROOT / target).exists(), (name, target)


def test_the_page_of_decisions_lists_each_with_date_and_status():
    index = (DOCS / "decisions/index.md").read_text()
    for path in sorted((DOCS / "decisions").glob("[0-9]*.md")):
        title, facts = re.match(r"# (\d{4}: .+)\n\n(\d{4}-\d\d-\d\d\. \S.*)\n", path.read_text()).groups()
        assert title[:4] == path.name[:4]
        date, status = facts.split(". ", 1)
        assert f"| [{title[:4]}]({path.name}) |" in index and f"| {date} | {status.rstrip('.')} |" in index, (
            path
        )


def test_there_is_one_version_number():
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dynamic"] == ["version"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == beatline.__version__ and citation["cff-version"] == "1.2.0"
    released = re.findall(r"(?m)^## \[([\d.]+)\] - \d{4}-\d\d-\d\d$", (ROOT / "CHANGELOG.md").read_text())
    assert released[0] == beatline.__version__


def test_every_release_says_what_became_of_numbers():
    releases = re.split(r"(?m)^## ", (ROOT / "CHANGELOG.md").read_text())[1:]
    assert releases and all("\n### Numerics\n" in release for release in releases)


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
    assert max(len(line) for line in (ROOT / "README.md").read_text().splitlines()) <= 110


def test_the_way_through_the_code_leads_through_files_that_are_there():
    """And the README says how many lines they have, to a tenth."""
    files = re.findall(r"`(src/beatline/[\w/]+\.py)`", (DOCS / "reading.md").read_text())
    lines = sum(len((ROOT / file).read_text().splitlines()) for file in files)
    every = sum(len(path.read_text().splitlines()) for path in (ROOT / "src").rglob("*.py"))
    said = re.search(
        r"about ([\d ]+)\s+lines from audio file to report, of ([\d ]+)", (ROOT / "README.md").read_text()
    )
    assert said
    for count, figure in zip((lines, every), said.groups(), strict=True):
        assert int(figure.replace(" ", "")) == pytest.approx(count, rel=0.1), (count, figure)


@pytest.mark.parametrize(("page", "below"), [("docs/design.md", "src/beatline"), ("CONTRIBUTING.md", ".")])
def test_what_the_plan_names_is_there(page, below):
    """Each file of the tables that say where to add something; of `<name>.py` its folder, with files."""
    table = (ROOT / page).read_text().split("## Where to add something")[1].split("\n## ")[0]
    named = re.findall(r"`((?:src/beatline/|docs/)?\w+/[\w/<>]*(?:\.py|\.md)?)[`:]", table)
    assert len(named) >= 8
    for name in named:
        path = ROOT / below / name
        if path.stem in ("<name>", "NAME"):
            assert any(file.stem != "__init__" for file in path.parent.glob("*.py")), name
        else:
            assert path.exists(), name


def test_the_plan_s_picture_names_each_room_and_what_is_in_it():
    picture = (DOCS / "design.md").read_text().split("```text\nbeatline/\n")[1].split("```")[0]
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert set(re.findall(r"  (\w+)/ ", picture)) == rooms
    for room, content in re.findall(r"(?m)^  (\w+)/ .*: (.+)$", picture):
        for name in re.findall(r"\w+", content) if room not in ("fetch", "assets") else ():
            assert [*(PACKAGE / room).glob(f"{name}.py"), *(PACKAGE / room).rglob(name)], (room, name)
