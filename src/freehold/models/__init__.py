# SPDX-License-Identifier: Apache-2.0
"""Model families over the op set, one file each: the file's name is the architecture's.

A family is added by adding a file with ``load(checkpoint, ops, progress=None) -> CausalLM``;
dense ones need only say by a `blocks.DenseLayout` where they differ. `loader` is the door,
`config` reads sizes, `names` knows Hugging Face's spelling of tensors.
"""
