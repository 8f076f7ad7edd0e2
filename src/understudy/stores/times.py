"""Times as people read them."""

from __future__ import annotations

from datetime import UTC, datetime


def show_time(seconds: float) -> str:
    """Return a time of a store (seconds since 1970) as text, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
