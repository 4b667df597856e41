# SPDX-License-Identifier: Apache-2.0
"""Who may ask: keys, and what browsers must not do."""
