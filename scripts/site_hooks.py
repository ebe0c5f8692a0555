"""Hooks of mkdocs: pages of the API reference, and links that leave ``docs``.

The reference has a page for each public module (see `api_page`), made from the docstrings. Links
from ``docs`` to other files of the repository are replaced by addresses there, so that the same
page works in the repository and on the site.
"""

from __future__ import annotations

import posixpath
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).parent))

import api_page

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.pages import Page

BRANCH = "main"
"""The branch of the repository to which links lead."""

_LINK_OUT = re.compile(r"(\]\()((?:\.\./)+[^)\s#]+)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the pages of the reference to the navigation."""
    pages = [{name: _path(name)} for name, _ in api_page.modules()]
    config.nav = [*(config.nav or []), {"API reference": pages}]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Generate a page for each public module."""
    for name, _ in api_page.modules():
        text = f"# {name}\n\n::: {name}\n    options:\n      show_root_heading: false\n"
        files.append(File.generated(config, _path(name), content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Replace relative links to files outside ``docs`` by their addresses in the repository."""
    folder = posixpath.dirname(posixpath.join("docs", page.file.src_uri))

    def absolute(link: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(folder, link[2]))
        if path.startswith("docs/"):
            return link[0]
        kind = "blob" if "." in posixpath.basename(path) else "tree"
        return f"{link[1]}{config.repo_url}/{kind}/{BRANCH}/{path}"

    return _LINK_OUT.sub(absolute, markdown)


def _path(module: str) -> str:
    return f"reference/{module}.md"
