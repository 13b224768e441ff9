"""The documentation as a site: it is built from the same Markdown, every link of it leads somewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html import unescape
from pathlib import Path
from urllib.parse import unquote

import pytest

pytest.importorskip("material", reason="needs mkdocs-material")
ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
REFERENCE = re.compile(r'(?:href|src)="([^"]+)"')

pytestmark = pytest.mark.skipif(not (ROOT / "mkdocs.yml").is_file(), reason="needs the whole repository")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make site` builds it: a warning is a failure."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_is_in_the_navigation_but_the_log(site: Path) -> None:
    """Whoever reads finds all pages in the menu; the log of experiments is built, and only linked to."""
    home = (site / "index.html").read_text(encoding="utf-8")
    menu = "".join(re.findall(r'<a href="([^"#]+)" class="md-nav__link">', home))
    missing = [page.stem for page in sorted(DOCS.glob("*.md")) if f"{page.stem}.html" not in menu]
    assert missing == ["LOG"]
    assert (site / "LOG.html").is_file()


def test_links_lead_to_files_of_the_site(site: Path) -> None:
    """Every link and picture that does not lead elsewhere is a file of the site, also those to files outside docs/."""
    pages = [page for page in site.rglob("*.html") if page.name != "404.html"]
    assert len(pages) > len(list(DOCS.glob("*.md")))
    lost = []
    for page in pages:
        for link in set(REFERENCE.findall(page.read_text(encoding="utf-8"))):
            path = unquote(unescape(link)).partition("#")[0]
            if path and not re.match(r"[a-z]+:|//", path) and not (page.parent / path).exists():
                lost.append((page.name, link))
    assert lost == []


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    """No page of the site loads fonts, scripts or pictures from other hosts."""
    loaded = re.compile(
        r'<(?:script|img)[^>]+src="(https?:[^"]+)"|<link[^>]+rel="stylesheet"[^>]+href="(https?:[^"]+)"'
    )
    found = [(page.name, hit) for page in site.rglob("*.html") for hit in loaded.findall(page.read_text("utf-8"))]
    assert found == []
