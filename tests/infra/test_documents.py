"""The documents are as `make documents` writes them."""

from __future__ import annotations

import pytest

from tools.documents.__main__ import main


def test_every_document_is_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check"]) == 0, capsys.readouterr().err
