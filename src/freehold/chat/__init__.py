# SPDX-License-Identifier: Apache-2.0
"""Text on its way in and out of a model: tokenizers, detokenising, chat templates."""
