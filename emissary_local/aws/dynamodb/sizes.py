"""Largest item, and how our DynamoDB's process tells what a request has written."""

from __future__ import annotations

from typing import Final

#: Largest item, attribute names included, in bytes: 400 KB. Source: "Quotas in Amazon DynamoDB".
MAX_ITEM: Final = 400 * 1024

#: Header by which our DynamoDB's answers tell the sizes of the items that were written, in bytes.
WRITTEN: Final = "X-Local-Written"
