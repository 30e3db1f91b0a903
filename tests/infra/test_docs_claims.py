"""What the documents say of AWS has AWS's page beside it, or stands in the list of what is not known."""

from __future__ import annotations

import re
from typing import Final

import pytest

from tests.infra.documents import ROOT, prose, read, section, tables
from tests.infra.test_docs_operations import MANUAL, QUOTAS
from tools.probe.questions import QUESTIONS

SOURCES: Final = "docs/aws.md"
UNKNOWN: Final = "What could not be proven without an account"

#: The documents whose claims have their sources in :data:`SOURCES`.
CLAIMANTS: Final = (MANUAL, "docs/network.md", "docs/security.md")

#: Whose word counts: AWS's pages, and where its users report what it does.
_WITNESSES: Final = (
    "https://docs.aws.amazon.com/",
    "https://aws.amazon.com/",
    "https://github.com/aws-cloudformation/",
)

_LINK: Final = re.compile(r"\[([^\]]*)\]\(([^)\s]+)\)")


def headings() -> list[str]:
    return re.findall(r"^## (.+)$", read(SOURCES), re.MULTILINE)


CLAIMS: Final = [row for heading in headings() for table in tables(SOURCES, heading) for row in table]


def plain(text: str) -> str:
    return prose(text).replace("`", "")


def unknown() -> list[list[str]]:
    (table,) = tables(MANUAL, UNKNOWN)
    return table


@pytest.mark.parametrize("row", CLAIMS, ids=lambda row: row[0][:40])
def test_a_claim_stands_in_its_document_and_has_a_source_of_aws(row: list[str]) -> None:
    said, where, source = row
    ((name, path),) = _LINK.findall(where)
    document = f"docs/{path}"
    assert name == path
    assert document in CLAIMANTS
    assert plain(said) in plain(read(document))
    outside = [url for _, url in _LINK.findall(source) if not url.startswith("operations.md#")]
    assert outside
    assert all(url.startswith(_WITNESSES) for url in outside)


def test_no_claim_is_listed_twice_and_every_document_has_some() -> None:
    assert len({said for said, _, _ in CLAIMS}) == len(CLAIMS)
    assert {f"docs/{_LINK.findall(where)[0][1]}" for _, where, _ in CLAIMS} == set(CLAIMANTS)
    assert all("(aws.md)" in read(document) for document in CLAIMANTS)


def test_every_quota_has_a_source() -> None:
    for row in tables(MANUAL, QUOTAS)[0]:
        source = row[-1]
        assert source == "template.yaml" or any(
            url.startswith("https://docs.aws.amazon.com/") for _, url in _LINK.findall(source)
        ), row[0]


def test_every_price_has_a_source() -> None:
    prices = next(
        table for table in tables(MANUAL, "Prices") if "a million WebSocket messages" in table[0][0]
    )
    for row in prices:
        assert any(url.startswith("https://") for _, url in _LINK.findall(row[-1])) or "by " in row[-1], row[
            0
        ]


def test_what_is_not_known_leads_to_questions_of_the_probe() -> None:
    asked = {str(each.number) for each in QUESTIONS}
    for what, does, question in unknown():
        assert does, what
        if question != "none":
            ((numbers, target),) = _LINK.findall(question)
            assert target == "probe.md#what-it-asks", what
            assert set(numbers.split(", ")) <= asked, what


def test_every_question_of_the_probe_is_of_something_that_is_not_known() -> None:
    """Whoever adds a question says in the list what Emissary does until it is answered."""
    listed = {
        number for *_, question in unknown() for number in re.findall(r"\d+", _LINK.sub(r"\1", question))
    }
    assert listed == {str(each.number) for each in QUESTIONS}


def test_no_page_of_aws_is_linked_unencrypted_or_in_another_language() -> None:
    for document in (SOURCES, *CLAIMANTS):
        for _, url in _LINK.findall(read(document)):
            if "amazon.com" in url:
                assert url.startswith("https://"), url
                assert not re.search(r"amazon\.com/[a-z]{2}_[a-z]{2}/|amazon\.com/[a-z]{2}/", url), url


def test_the_site_has_the_page_of_sources() -> None:
    assert "      - aws.md\n" in (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert section(SOURCES, headings()[0])
