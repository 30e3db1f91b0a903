"""The documents as a site: where links lead, and that no reader is made to ask another server."""

from __future__ import annotations

import pytest

from tools.documents import site

WEB = "https://git.test/us/it"


@pytest.mark.parametrize(
    ("page", "link", "there"),
    [
        ("README.md", "docs/guides/ci.md#time", "guides/ci.md#time"),
        ("README.md", "CHANGELOG.md", f"{WEB}/blob/main/CHANGELOG.md"),
        ("README.md", "docs", f"{WEB}/tree/main/docs"),
        ("docs/api.md", "../README.md", "index.md"),
        ("docs/guides/ci.md", "../../README.md#limits", "../index.md#limits"),
        (
            "docs/guides/ci.md",
            "../../emissary_local/README.md#use",
            f"{WEB}/blob/main/emissary_local/README.md#use",
        ),
        ("docs/guides/ci.md", "laptop.md", "laptop.md"),
        ("docs/guides/ci.md", "../doctor.md", "../doctor.md"),
        ("docs/api.md", "#errors", "#errors"),
        ("docs/api.md", "https://example.com/a.md", "https://example.com/a.md"),
    ],
)
def test_a_link_leads_to_the_page_or_else_to_the_repository(page: str, link: str, there: str) -> None:
    assert site.site_links(f"see [it]({link}).", page, WEB) == f"see [it]({there})."


def test_the_repository_is_the_one_of_pyproject() -> None:
    assert site.repository().startswith("https://")
    assert not site.repository().endswith("/")


@pytest.mark.parametrize(
    "element",
    [
        '<script src="https://cdn.test/x.js">',
        '<link rel="stylesheet" href="//fonts.test/css">',
        "<img alt=x src=http://elsewhere.test/y.png>",
        '<pre class="mermaid">',
        '<a href="https://git.test" data-md-component="source">',
    ],
)
def test_what_a_browser_asks_another_server_for_is_found(element: str) -> None:
    own = '<a href="https://elsewhere.test">there</a><script src="assets/x.js"></script>'
    assert site.fetched_elsewhere(own) == []
    assert site.fetched_elsewhere(own + element) == [element]
