# SPDX-License-Identifier: Apache-2.0
"""What a server tells of its work: log, counters, health."""
