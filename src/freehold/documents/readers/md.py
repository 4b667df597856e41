# SPDX-License-Identifier: Apache-2.0
"""Markdown: its source is the document, for models read the marks as people do."""

from __future__ import annotations

from freehold.documents.readers.txt import read

__all__ = ["VERSION", "read"]

VERSION = 1
