"""How often a key may call, and an address may fail to show one."""

from __future__ import annotations

import time

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter

from service.errors import ApiError

FAILURES = 120  # calls without a good key, per minute and address


class Limits:
    """Calls a minute, counted in this process."""

    def __init__(self, per_minute: int) -> None:
        self.limiter = FixedWindowRateLimiter(MemoryStorage())
        self.calls, self.failures = RateLimitItemPerMinute(per_minute), RateLimitItemPerMinute(FAILURES)

    def take(self, key_id: str) -> dict[str, str]:
        """Count one call. Returns the headers that OpenAI's clients read. Raises ApiError 429."""
        allowed = self.limiter.hit(self.calls, "key", key_id)
        resets, left = self.limiter.get_window_stats(self.calls, "key", key_id)
        wait = max(0.0, resets - time.time())
        headers = {
            "x-ratelimit-limit-requests": str(self.calls.amount),
            "x-ratelimit-remaining-requests": str(left),
            "x-ratelimit-reset-requests": f"{round(1000 * wait)}ms",
        }
        if not allowed:
            raise _too_many(f"{self.calls.amount} calls a minute are allowed for this key", wait, headers)
        return headers

    def take_failure(self, address: str) -> None:
        """Count a call without a good key. Raises ApiError 429."""
        if not self.limiter.hit(self.failures, "address", address):
            resets, _ = self.limiter.get_window_stats(self.failures, "address", address)
            raise _too_many(f"{FAILURES} calls a minute without a good key are allowed", resets - time.time(), {})


def _too_many(what: str, wait: float, headers: dict[str, str]) -> ApiError:
    seconds = min(60, max(1, round(wait + 0.5)))
    return ApiError(
        429,
        f"Too many calls: {what}; try again in {seconds} s",
        "rate_limit_exceeded",
        headers=headers | {"Retry-After": str(seconds)},
    )
