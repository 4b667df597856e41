# SPDX-License-Identifier: Apache-2.0
"""Makers of documents with known facts, one module for each kind.

How the split is guaranteed: every wording is a `Phrases` (a training and a held-out tuple), every
arrangement comes from the training or the held-out list of `layout.py`, every value from the
makers of `values.py`. A maker only ever asks with the split of its `Draw`. Heads of mails, records
of made words and chatter are in training alone.

What the split does not promise: both sides have one author, and held-out sentences use mostly words
that training uses too, since a model trained from nothing knows no others.
"""
