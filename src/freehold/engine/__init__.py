# SPDX-License-Identifier: Apache-2.0
"""Turning prompts into tokens: scheduling, the paged cache, sampling. No text, no weights."""
