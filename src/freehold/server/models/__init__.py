# SPDX-License-Identifier: Apache-2.0
"""The models a server answers for: which there are, which are loaded, what they take."""
