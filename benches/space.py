"""How much room the inputs and a round need, to be said before anything begins."""

import os
import shutil
from pathlib import Path

from inputs import CHANGED_SHARE, SMALL_ON_DISK, Sizes
from tools import MissingTool

MARGIN = 1_000_000_000


def text(bytes_: float) -> str:
    return f"{bytes_ / 1e9:.1f} GB"


def free(work: Path) -> int:
    return shutil.disk_usage(work).free - MARGIN


def stays_in_memory(bytes_: float) -> bool:
    """Whether so many bytes of files are still cached after they were read, and leave room for whoever is timed."""
    return bytes_ < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2


def tree_on_disk(sizes: Sizes) -> float:
    return sizes.tree_bytes + sizes.tree_files * 2500


def input_bytes(group: str, sizes: Sizes) -> dict[str, float]:
    """What the inputs of a group take, by name."""
    tree = {"tree": tree_on_disk(sizes)}
    inputs: dict[str, dict[str, float]] = {
        "tree": tree,
        "s3": tree,
        "tiny": {f"tiny-{sizes.tiny}": sizes.tiny * SMALL_ON_DISK},
        "large": {"large": sizes.large},
        "prune": {"prune": sizes.prune_files * (sizes.prune_file_bytes + 2500)},
        "records": {},
        # The largest is left out if there is no room.
        "growth": {f"tiny-{n}": n * SMALL_ON_DISK for n in sizes.growth[:-1]},
    }
    return inputs[group]


def round_bytes(group: str, sizes: Sizes, names: list[str]) -> int:
    """What a round of a group leaves on the disk."""
    tree, count = tree_on_disk(sizes), len(names)
    rounds = {
        "tree": 1.3 * tree * count,
        "s3": 0.3 * tree * count,
        "tiny": sizes.tiny * 600 * count,
        "large": 0.46 * sizes.large * sum(1 for n in names if n != "limit"),
        # A repository of all snapshots with each program, and its copies.
        "prune": 6 * (sizes.prune_files + sizes.snapshots * sizes.prune_files / CHANGED_SHARE) * sizes.prune_file_bytes * count,
        "records": sizes.records * SMALL_ON_DISK,
        "growth": growth_bytes(sizes.growth[-2]) * 2,
    }
    return int(rounds[group])


def growth_bytes(files: int, restores: bool = True) -> int:
    """A repository with what it remembers, and a restore, of one program."""
    return files * (700 + SMALL_ON_DISK * restores)


def check(work: Path, groups: list[str], sizes: Sizes, names: list[str], repeat: int) -> str:
    """Refuses a run that cannot end for want of room; says what it will take."""
    inputs = least = most = inodes = 0.0
    worst, seen = "", set()
    for group in groups:
        for name, size in input_bytes(group, sizes).items():
            if name not in seen and not (work / "inputs" / f"{name}.json").exists():
                inputs += size
                inodes += int(name.split("-")[1]) * 1.01 if name.startswith("tiny") else 0
            seen.add(name)
        round_ = round_bytes(group, sizes, [*names, "limit"])
        worst, least = max((worst, least), (group, inputs + round_), key=lambda w: w[1])
        most += round_ * (repeat if group in ("tree", "s3", "tiny") else 1)
    inodes += sizes.growth[-2] * 2 if "growth" in groups else 0
    inodes += sizes.tree_files * (len(names) + 2) if "tree" in groups else 0
    have, left = free(work), os.statvfs(work).f_favail
    if least > have:
        raise MissingTool(f"{text(least)} are needed below {work} (at most while {worst!r} runs, {text(inputs)} for inputs in all); {text(have)} are free. "
                      "Use another --work, or --only with fewer rows in several runs, or fewer --programs")
    if left and inodes > left:
        raise MissingTool(f"{inodes:,.0f} inodes are needed below {work}, {left:,} are free. Use another --work, or --only without tiny and growth")
    how = "nothing is deleted before the end" if inputs + most <= have else "earlier rounds are deleted between rounds"
    return f"{text(inputs)} for inputs and up to {text(inputs + most)} in all, {text(have)} are free below {work}: {how}"
