"""Where the time of an evaluation goes: stage by stage, on the host and on the device."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

WAITING = 'waiting for pictures'


class StageClock:
    """Adds up what stages take on the host, and on a CUDA device what it takes to do what they asked for.

    Nothing waits for the device but `table`. Stages may nest: then the inner one's time is the outer's, too.
    """

    def __init__(self, device: str):
        self.cuda = device == 'cuda'
        self.host: dict[str, float] = {}
        self.calls: dict[str, int] = {}
        self._events: dict[str, list[tuple[torch.cuda.Event, torch.cuda.Event]]] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        events = self._mark() if self.cuda else None
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(stage, time.perf_counter() - start)
            if events is not None:
                self._events.setdefault(stage, []).append((events, self._mark()))

    @staticmethod
    def _mark() -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def add(self, stage: str, seconds: float) -> None:
        """Seconds of the host that a stage took."""
        self.host[stage] = self.host.get(stage, 0.0) + seconds
        self.calls[stage] = self.calls.get(stage, 0) + 1

    def device_seconds(self) -> dict[str, float]:
        """What each stage took on the device, if that is a CUDA one."""
        if not self.cuda:
            return {}
        torch.cuda.synchronize()
        return {
            stage: sum(start.elapsed_time(end) for start, end in pairs) / 1000 for stage, pairs in self._events.items()
        }

    def table(self, total: float, pictures: int) -> str:
        """The stages in their order, in milliseconds a picture, and what the whole, of `total` seconds, waits for."""
        device = self.device_seconds()
        rest = max(total - sum(self.host.values()), 0.0)
        rows = [*self.host.items(), ('all else', rest)]
        width = max(len(stage) for stage, _ in rows)
        columns = 'host      device' if self.cuda else 'host'
        lines = [f'{"ms a picture":{width}}  {columns}']
        for stage, seconds in rows:
            on_device = f'{1000 * device[stage] / pictures:9.2f}' if stage in device else ''
            lines.append(f'{stage:{width}}  {1000 * seconds / pictures:7.2f}  {on_device}'.rstrip())
        lines.append(f'{"in all":{width}}  {1000 * total / pictures:7.2f}')
        lines.append(f'{pictures / total:.1f} pictures a second; what bounds it: {self.bound(total, device)}')
        return '\n'.join(lines)

    def bound(self, total: float, device: dict[str, float]) -> str:
        """What the time is spent on most: loading, the host's own work, or the device's."""
        waiting = self.host.get(WAITING, 0.0)
        if waiting > total / 2:
            return 'the loading of pictures (more num_workers, or a faster disk)'
        if not self.cuda:
            return 'the processor'
        busy = sum(device.values())
        return 'the device' if busy > 0.8 * total else 'the host, which launches work for the device (larger batches)'
