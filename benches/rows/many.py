"""A million tiny files, and growth with their number."""

from functools import partial

import space
from bench import Bench
from inputs import SMALL_ON_DISK
from programs import Limit
from rows.tree import whole

TITLES = {"tiny.first": "first backup, a million tiny files", "tiny.same": "no change, a million files"}
LIMITS = {"tiny.same": "`find -printf '%s %T@'`"}


def run(bench: Bench) -> None:
    source = bench.tiny(bench.sizes.tiny)
    for round_, names in bench.rounds("tiny", bench.repeat, only=["runner", "restic", "rustic"]):
        players = bench.players("tiny", round_, names, source.path)
        for p in players:
            if not isinstance(p, Limit):
                bench.time("tiny.first", p, p.backup(), source.path, p.sizes)
        for p in players:
            bench.time("tiny.same", p, p.walk() if isinstance(p, Limit) else p.backup(), source.path)


def run_growth(bench: Bench) -> None:
    """Each size once; the largest for runner only, and as far as the disk has room."""
    for count in bench.sizes.growth:
        if count < bench.sizes.growth[-1]:
            grow(bench, count, ["runner", "restic"], True)
            continue
        there = (bench.work / "inputs" / f"tiny-{count}.json").exists()
        inputs = 0 if there else count * SMALL_ON_DISK
        all_, least = (inputs + space.growth_bytes(count, restores) for restores in (True, False))
        if not bench.room(least):
            free = space.text(space.free(bench.work))
            bench.book.note("growth", f"{count:,} files were not tried: {space.text(least)} are needed, {free} were free")
            continue
        restores = space.free(bench.work) >= all_
        if not restores:
            bench.book.note("growth", f"{count:,} files were not restored: {space.text(all_)} are needed for it, {space.text(space.free(bench.work))} were free")
        grow(bench, count, ["runner"], restores)


def grow(bench: Bench, count: int, names: list[str], restores: bool) -> None:
    source, group = bench.tiny(count), f"growth-{count}"
    read = source.path if space.stays_in_memory(count * SMALL_ON_DISK) else None
    if not read:
        bench.book.note("cold", f"{count:,} files were not read before each timing: they do not stay in memory")
    need = space.growth_bytes(count, restores) * len(names)
    for round_, playing in bench.rounds(group, 1, limit=False, only=names, bytes_=need):
        players = bench.players(group, round_, playing, source.path)
        for work in ("first", "same"):
            for p in players:
                bench.time(f"{group}.{work}", p, p.backup(), read)
        if not restores:
            continue
        bench.settle()
        for p in players:
            target = p.place / "restored"
            target.mkdir()
            bench.time(f"{group}.restore", p, p.restore(target), read, check=partial(whole, p, target, source.tally()))
