# SPDX-License-Identifier: Apache-2.0
"""OpenAI's dialects, one file each beside what they share."""
