# SPDX-License-Identifier: Apache-2.0
"""Makes `catalogue/compiled.json` of the TOML files beside it; a test holds the two together.

python tools/catalogue.py
"""

from __future__ import annotations

from freehold.catalogue.family_file import COMPILED, compile_families

if __name__ == "__main__":
    COMPILED.write_text(compile_families(), "utf-8")
