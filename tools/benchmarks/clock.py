"""Measuring: seconds and memory of calls."""

import statistics
import time
from collections.abc import Callable
from itertools import accumulate

import torch
from torch.profiler import ProfilerActivity, profile


class Clock:
    """Times calls on a device; `seconds` has every time by name."""

    def __init__(self, device: torch.device):
        self.device = device
        self.seconds: dict[str, list[float]] = {}

    def time(self, name: str, call: Callable, *arguments):
        """Run a call and note its time under a name; returns what it returns."""
        self._wait()
        start = time.perf_counter()
        result = call(*arguments)
        self._wait()
        self.seconds.setdefault(name, []).append(time.perf_counter() - start)
        return result

    def _wait(self) -> None:
        if self.device.type == 'cuda':
            torch.cuda.synchronize(self.device)

    def median(self, name: str) -> float:
        return statistics.median(self.seconds[name])

    def ratio(self, name: str, other: str) -> float:
        """Median over rounds of one time divided by another of the same round."""
        return statistics.median(a / b for a, b in zip(self.seconds[name], self.seconds[other], strict=True))


def peak_bytes(device: torch.device, call: Callable, *arguments) -> int:
    """The most memory of tensors in use during a call, beyond what was in use before."""
    if device.type == 'cuda':
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call(*arguments)
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call(*arguments)
    events = (event for event in profiler.profiler.kineto_results.events() if event.name() == '[memory]')
    changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return max(accumulate(changes, initial=0))
