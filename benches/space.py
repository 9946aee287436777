"""How much room the inputs and a round need, to be said before anything begins."""

import os
import shutil
from pathlib import Path

from inputs import SMALL_ON_DISK, Sizes
from tools import Missing

MARGIN = 1_000_000_000
INODES_PER_FILE = 1.02


def text(bytes_: float) -> str:
    return f"{bytes_ / 1e9:.1f} GB"


def free(work: Path) -> int:
    return shutil.disk_usage(work).free - MARGIN


def tree_on_disk(sizes: Sizes) -> float:
    return sizes.tree_bytes + sizes.tree_files * 2500


def input_bytes(group: str, sizes: Sizes) -> dict[str, float]:
    """What the inputs of a group take, by name."""
    tree = {"tree": tree_on_disk(sizes)}
    return {
        "tree": tree,
        "s3": tree,
        "tiny": {f"tiny-{sizes.tiny}": sizes.tiny * SMALL_ON_DISK},
        "large": {"large": sizes.large},
        "prune": {"prune": sizes.prune_files * (sizes.prune_file_bytes + 2500)},
        "records": {},
        # The largest is left out if there is no room.
        "growth": {f"tiny-{n}": n * SMALL_ON_DISK for n in sizes.growth[:-1]},
    }[group]


def round_bytes(group: str, sizes: Sizes, names: list[str]) -> int:
    """What a round of a group leaves on the disk."""
    tree, count = tree_on_disk(sizes), len(names)
    return int({
        "tree": 1.5 * tree * count,
        "s3": 0.4 * tree * count,
        "tiny": sizes.tiny * 600 * count,
        "large": 0.55 * sizes.large * count,
        "prune": 4 * sizes.snapshots * sizes.prune_files / 100 * sizes.prune_file_bytes * count + 1e8,
        "records": sizes.records * SMALL_ON_DISK + 1e8,
        "growth": growth_bytes(sizes.growth[-2], count),
    }[group])


def growth_bytes(files: int, count: int) -> float:
    return files * (SMALL_ON_DISK + 700) * count


def check(work: Path, groups: list[str], sizes: Sizes, names: list[str], repeat: int) -> str:
    """Refuses a run that cannot end for want of room; says what it will take."""
    inputs: dict[str, float] = {}
    for group in groups:
        inputs |= input_bytes(group, sizes)
    missing = sum(size for name, size in inputs.items() if not (work / "inputs" / f"{name}.json").exists())
    rounds = {group: round_bytes(group, sizes, [*names, "limit"]) for group in groups}
    least = missing + max(rounds.values(), default=0)
    times = {"large": 1, "records": 1, "growth": 1, "prune": 1}
    most = missing + sum(size * times.get(group, repeat) for group, size in rounds.items())
    have = free(work)
    inodes = sum(1 for name in inputs if name.startswith("tiny")) and sizes.tiny * 4 * INODES_PER_FILE
    inodes += sizes.tree_files * len(names) * repeat if "tree" in groups else 0
    left = os.statvfs(work).f_favail
    if least > have:
        worst = max(rounds, key=lambda g: rounds[g])
        raise Missing(f"{text(least)} are needed below {work}: {text(missing)} for inputs, {text(rounds[worst])} for a round of {worst!r}; "
                      f"{text(have)} are free. Use another --work, or --only with fewer rows in several runs, or fewer --programs")
    if left and inodes > left:
        raise Missing(f"{inodes:,.0f} inodes are needed below {work}, {left:,} are free. Use another --work, or --only without tiny and growth")
    how = "nothing is deleted before the end" if most <= have else "earlier rounds are deleted between rounds"
    return f"{text(missing)} for inputs and up to {text(most)} in all, {text(have)} are free below {work}: {how}"
