# SPDX-License-Identifier: Apache-2.0
"""From a Hugging Face directory to what a GGUF file holds: keys, tokenizer and tensors.

`huggingface.convert` puts the parts together. Weights are not re-encoded here.
"""
