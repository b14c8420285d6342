"""How many cores this process may use: those of its affinity, and no more than a container's share of them."""

from __future__ import annotations

import math
import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def available(cgroup: Path = CGROUP) -> int:
    """At least 1. A container on a host of 64 cores that may use two (`docker run --cpus=2`) has two."""
    try:
        found = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        found = os.cpu_count() or 1
    share = _share(cgroup)
    return max(1, found if share is None else min(found, math.ceil(share)))


def _share(cgroup: Path) -> float | None:
    """Cores that the control group is given, of version 2 or 1; None where it has no limit."""
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (cgroup / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (cgroup / "cpu" / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    if not quota.isdigit() or not period.isdigit() or int(period) == 0:  # "max", or -1
        return None
    return int(quota) / int(period)
