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
    for round_, names in bench.rounds("tiny", bench.repeat):
        players = bench.players("tiny", round_, names, source.path)
        for p in players:
            if not isinstance(p, Limit):
                bench.time("tiny.first", p, p.backup(), source.path, lambda p=p: {"stored": p.stored()})
        for p in players:
            bench.time("tiny.same", p, p.walk() if isinstance(p, Limit) else p.backup(), source.path)


def run_growth(bench: Bench) -> None:
    """Each size once; the largest for runner only, and as far as the disk has room."""
    for count in bench.sizes.growth:
        largest = count == bench.sizes.growth[-1]
        names = ["runner"] if largest else ["runner", "restic"]
        restores = True
        if largest:
            free = space.free(bench.work)
            there = (bench.work / "inputs" / f"tiny-{count}.json").exists()
            least = (0 if there else count * SMALL_ON_DISK) + count * 700
            restores = free >= least + count * SMALL_ON_DISK
            if free < least:
                bench.book.note("growth", f"{count:,} files were not tried: {space.text(least)} are needed, {space.text(free)} were free")
                continue
            if not restores:
                bench.book.note("growth", f"{count:,} files were not restored: there was no room for them")
        grow(bench, count, names, restores)


def grow(bench: Bench, count: int, names: list[str], restores: bool) -> None:
    source = bench.tiny(count)
    for round_, players_names in bench.rounds(f"growth-{count}", 1, limit=False, only=names):
        players = bench.players(f"growth-{count}", round_, players_names, source.path)
        for p in players:
            bench.time(f"growth-{count}.first", p, p.backup(), source.path)
        for p in players:
            bench.time(f"growth-{count}.same", p, p.backup(), source.path)
        if not restores:
            continue
        bench.settle()
        for p in players:
            target = p.place / "restored"
            target.mkdir()
            bench.time(f"growth-{count}.restore", p, p.restore(target), source.path, check=partial(whole, p, target, source.tally()))
