# SPDX-License-Identifier: Apache-2.0
"""How much may be asked: of a connection, a request, a key."""
