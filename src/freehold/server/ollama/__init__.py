# SPDX-License-Identifier: Apache-2.0
"""Ollama's dialect."""
