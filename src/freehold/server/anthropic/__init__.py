# SPDX-License-Identifier: Apache-2.0
"""Anthropic's dialects: messages, batches of them, models."""
