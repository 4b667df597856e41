# SPDX-License-Identifier: Apache-2.0
"""What is asked of a model without decoding: tokens, labels, an order of documents."""
