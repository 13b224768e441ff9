"""What makes a site of the repository's own Markdown: mkdocs calls these while it builds.

The README is the first page. Links that lead out of docs/ go to copies of those files, under `source/`, so that every
link of the site leads somewhere within it; links to folders become plain text.
"""

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^)\s]+)\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the README, and what the pages link to outside of docs/."""
    waiting = ["README.md", *(f"docs/{file.src_uri}" for file in files.documentation_pages())]
    known = set(waiting)
    while waiting:
        page = waiting.pop()
        text = (ROOT / page).read_text(encoding="utf-8")
        if not page.startswith("docs/"):
            files.append(File.generated(config, site_path(page), content=rewritten(text, page)))
        for path in targets(text, page):
            if path in known or path.startswith("docs/") or not (ROOT / path).is_file():
                continue
            known.add(path)
            if path.endswith(".md"):
                waiting.append(path)
            else:
                files.append(File.generated(config, site_path(path), abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Let the links of a page under docs/ lead to where their targets are on the site."""
    is_added = page.file.generated_by is not None
    return markdown if is_added else rewritten(markdown, f"docs/{page.file.src_uri}")


def site_path(path: str) -> str:
    """Where a file of the repository is on the site.

    >>> site_path("README.md"), site_path("docs/train.md"), site_path("runs/base.sh")
    ('index.md', 'train.md', 'source/runs/base.sh')
    """
    if path == "README.md":
        return "index.md"
    return path.removeprefix("docs/") if path.startswith("docs/") else f"source/{path}"


def targets(text: str, page: str) -> Iterator[str]:
    """The files and folders of the repository that a page links to."""
    for _, _, link in LINK.findall(text):
        if not is_elsewhere(link):
            yield resolved(link, page)


def rewritten(text: str, page: str) -> str:
    """The page with links that lead to the same files on the site."""
    here = posixpath.dirname(site_path(page)) or "."

    def link_of(found: re.Match[str]) -> str:
        mark, shown, link = found.groups()
        if is_elsewhere(link):
            return found[0]
        path, _, heading = link.partition("#")
        target = resolved(path, page)
        if (ROOT / target).is_dir():
            return shown
        leads_to = posixpath.relpath(site_path(target), here)
        return f"{mark}[{shown}]({leads_to}{'#' * bool(heading)}{heading})"

    return LINK.sub(link_of, text)


def is_elsewhere(link: str) -> bool:
    """Whether a link leads out of the repository, or stays on its page."""
    return link.startswith(("http://", "https://", "#"))


def resolved(link: str, page: str) -> str:
    """The path in the repository that a link of a page leads to."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), link.partition("#")[0]))
