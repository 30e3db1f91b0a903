"""What makes a site of the documents: hooks of MkDocs, which mkdocs.yml names.

The documents' links are those of the source tree, for whoever reads them there. On the site README is the
index, and what is no page leads to the repository.
"""

from __future__ import annotations

import pathlib
import posixpath
import re
import tomllib
from typing import Any, Final

ROOT: Final = pathlib.Path(__file__).resolve().parents[2]

#: A link of Markdown's that is neither an address nor only an anchor.
_LINK: Final = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)\s#]+)(#[^)\s]*)?(?=\))")

#: What a browser fetches of its own accord from another server; or has the theme fetch, by these two marks.
_FETCHED: Final = re.compile(
    r"""<(?:script|img|iframe|source|link)\b[^>]*?\b(?:src|href)=["']?(?:https?:)?//[^>]*>"""
    r"""|<[^>]*\bclass=["']?mermaid\b[^>]*>|<[^>]*\bdata-md-component=["']?source\b[^>]*>"""
)


def repository() -> str:
    """Where the source tree is on the web."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        found: str = tomllib.load(file)["project"]["urls"]["Homepage"]
    return found.rstrip("/")


def site_links(text: str, page: str, web: str) -> str:
    """A document's text with the links of the site.

    Args:
        text: Markdown.
        page: The document's path from the root of the source tree.
        web: The repository's address.

    Example:
        >>> site_links("[a](docs/api.md#errors) [b](example.env)", "README.md", "https://git.test/us")
        '[a](api.md#errors) [b](https://git.test/us/blob/main/example.env)'
        >>> site_links("[a](../../README.md#install) [b](../api.md)", "docs/guides/ci.md", "https://git.test/us")
        '[a](../index.md#install) [b](../api.md)'
    """
    here = posixpath.dirname(_page(page))

    def link(found: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(page), found[1]))
        anchor = found[2] or ""
        if path == "README.md" or (path.startswith("docs/") and path.endswith(".md")):
            return posixpath.relpath(_page(path), here or ".") + anchor
        return f"{web}/{'tree' if (ROOT / path).is_dir() else 'blob'}/main/{path}{anchor}"

    return _LINK.sub(link, text)


def fetched_elsewhere(html: str) -> list[str]:
    """The elements of a page for which a browser asks another server."""
    return _FETCHED.findall(html)


def _page(path: str) -> str:
    return "index.md" if path == "README.md" else path.removeprefix("docs/")


def on_config(config: Any) -> Any:
    """A link to the repository. Not by ``repo_url``: then the theme asks GitHub for the number of stars."""
    config.extra["social"] = [{"icon": "fontawesome/brands/git-alt", "link": repository(), "name": "Source"}]
    return config


def on_files(files: Any, config: Any) -> Any:
    """README is a page."""
    from mkdocs.structure.files import File

    files.append(File.generated(config, "index.md", abs_src_path=str(ROOT / "README.md")))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """The page's links."""
    uri = page.file.src_uri
    return site_links(markdown, "README.md" if uri == "index.md" else f"docs/{uri}", repository())


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Nothing of a page comes from another server."""
    if found := fetched_elsewhere(output):
        from mkdocs.exceptions import PluginError

        raise PluginError(f"{page.file.src_uri} has its reader ask another server: {', '.join(found)}")
    return output
