# SPDX-License-Identifier: Apache-2.0
"""Will it fit, and how fast will it be: told from headers and a machine, before anything is loaded.

`sizes` says what a model is, `machine` what there is to run it on; `memory` and `speed` put the two
together, `fit` and `recommend` judge. Knows no names and fetches nothing: that is
`freehold.planning`'s.
"""
