# SPDX-License-Identifier: Apache-2.0
"""A short soak: no answer lost or mixed up, nothing in use afterwards, no memory kept.

The long one is `python tests/server/soak.py --minutes 10`.
"""

from __future__ import annotations

import asyncio

from soak import Soak, questions, served


def test_64_impatient_clients_and_two_models_that_come_and_go():
    known = questions()
    with served() as process:
        sizes, files = [], []
        for round_ in range(2):
            soak = Soak(process.port, known, seed=round_)
            asyncio.run(soak.run(64, lambda asked: asked < 1))
            assert soak.wrong == []
            assert soak.counts["whole"] > 8
            assert soak.counts["stream"] > 8
            assert soak.counts["leave"] + soak.counts["reset"] > 4
            now = process.wait_until_idle()
            sizes.append(process.rss())
            files.append(process.open_files())
        assert now["model_loads_total"] > 2
        assert now["answers_total"] > 60
        # What a load or a thread's arena moves is a few megabytes; a leaked cache would be more.
        assert sizes[1] < sizes[0] + 48 * 2**20, sizes
        assert files[1] <= files[0] + 4, files
