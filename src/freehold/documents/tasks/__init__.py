# SPDX-License-Identifier: Apache-2.0
"""What can be done with documents, one file per task.

A task is a function from texts to one `Answer` each, in order. Offsets and evidence, where a task
gives them, count code points of exactly the text it was given.
"""
