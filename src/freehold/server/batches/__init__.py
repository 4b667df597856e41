# SPDX-License-Identifier: Apache-2.0
"""Batches of any dialect: kept on disk, worked off behind everybody else."""
