# SPDX-License-Identifier: Apache-2.0
"""Licences and openness of models: facts as data, and reasoning over them."""
