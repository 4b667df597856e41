# SPDX-License-Identifier: Apache-2.0
"""What clients leave on the server's disk, and how it comes there."""
