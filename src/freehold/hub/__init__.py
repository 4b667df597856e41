# SPDX-License-Identifier: Apache-2.0
"""Models on this machine: where they come from and how they lie on the disk."""
