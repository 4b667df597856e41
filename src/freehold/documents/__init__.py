# SPDX-License-Identifier: Apache-2.0
"""Work on documents: what is asked of a model and how a file becomes the text it is asked about.

Sits above `freehold.llm`: everything here enters the engine through the `LLM` class.
"""
