# SPDX-License-Identifier: Apache-2.0
"""The private endpoint: dialects over one request type. Nothing is imported until it is used."""
