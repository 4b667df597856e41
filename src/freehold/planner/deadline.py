# SPDX-License-Identifier: Apache-2.0
"""Times of day as people write them: ``06:00`` is the next time that a clock shows it."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from freehold.errors import InvalidParameterError

_CLOCK = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)")


def parse_deadline(text: str, now: datetime) -> datetime:
    """``06:00``, ``2026-12-24 06:00`` or ISO 8601; local time where no zone is named.

    Raises InvalidParameterError for anything else, and for what has passed."""
    if clock := _CLOCK.fullmatch(text.strip()):
        hour, minute = int(clock[1]), int(clock[2])
        today = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
        return today if today > now else today + timedelta(days=1)
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError:
        raise InvalidParameterError(
            f"{text!r:.40} is no time", hint="write 06:00 or 2026-12-24T06:00"
        ) from None
    found = found.astimezone(now.tzinfo) if found.tzinfo else found.replace(tzinfo=now.tzinfo)
    if found <= now:
        raise InvalidParameterError(f"{text.strip()} has passed", hint="name a time to come")
    return found
