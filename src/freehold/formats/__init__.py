# SPDX-License-Identifier: Apache-2.0
"""Model files: GGUF and safetensors, read and written; `checkpoint` is the one view over both."""
