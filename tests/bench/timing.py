"""What the benchmarks share."""

import time


def best_time(function, repeats):
    """Return (seconds of the fastest of ``repeats`` calls, the value of the last one)."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        value = function()
        times.append(time.perf_counter() - start)
    return min(times), value
