# SPDX-License-Identifier: Apache-2.0
"""The recipe of seedling: data, tokenizer, training, export, evaluation and card."""
