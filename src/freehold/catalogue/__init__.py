# SPDX-License-Identifier: Apache-2.0
"""What is known of models that can be downloaded, as data with sources. No network is asked.

`catalogue.members` lists them, `catalogue.find` knows them by name, `search.search` chooses.
"""
