"""An ordinary tree of real files: to a directory and back, and to S3."""

from functools import partial
from pathlib import Path

from bench import Bench
from inputs import Input, append, appended, spoil
from measure import compressed, tally
from programs import Borg, Limit, Program, Runner

TITLES = {
    "tree.first": "first backup, to a directory",
    "tree.same": "no change",
    "tree.append": "1 % of the files appended to",
    "tree.takeover": "takeover by a node with no local state",
    "tree.mtime": 'the same with `takeover_trust = "mtime"`',
    "tree.restore": "restore to a new directory",
    "tree.over": "restore over a tree where 1 % of the files were appended to",
    "tree.spoiled": "the same where the beginning of 1 % of the files was overwritten",
    "s3.first": "first backup, to S3 on loopback",
    "s3.directory": "the same to a directory, in turns with it",
    "s3.same": "no change, S3",
}
LIMITS = {
    "tree.first": "`tar \\| zstd -3 -T2`",
    "tree.same": "`find -printf '%s %T@'`",
    "tree.append": "`find -printf '%s %T@'`",
    "tree.takeover": "`cat` of all files",
    "tree.restore": "`zstd -dc \\| tar x`",
}


def whole(p: Program, target: Path, wanted: tuple[int, int, int]) -> bool:
    """Whether what was restored has as many entries, files and bytes as there were."""
    return tally(p.restored(target)) == wanted


def more_packs(player: Runner, before: int) -> dict[str, float]:
    return {"packs": player.packs() - before}


def grown(player: Program, before: int) -> dict[str, float]:
    return {"grown": player.stored() - before}


def run(bench: Bench) -> None:
    source = bench.tree()
    for round_, names in bench.rounds("tree", bench.repeat):
        players = bench.players("tree", round_, names, source.path)
        for p in players:
            bench.time("tree.first", p, p.backup(), source.path, p.sizes)
        for p in players:
            bench.time("tree.same", p, p.walk() if isinstance(p, Limit) else p.backup(), source.path)
        with appended(source.path, round_) as changed:
            after_append(bench, players, source, changed)


def after_append(bench: Bench, players: list[Program], before: Input, changed: list[str]) -> None:
    source = before.path
    for p in players:
        if isinstance(p, Limit):
            bench.time("tree.append", p, p.walk(), source, lambda: {"changed": len(changed), "compressed": compressed(source, changed)})
        else:
            bench.time("tree.append", p, p.backup(), source, partial(grown, p, p.stored()))
    for p in players:
        take_over(bench, p, source)
    wanted = tally(source)
    bench.settle()
    for p in players:
        target = p.place / "restored"
        target.mkdir()
        # Its archive is of the first row.
        bench.time("tree.restore", p, p.restore(target), source, check=partial(whole, p, target, before.tally() if isinstance(p, Limit) else wanted))
    # What was appended can be cut off; what was overwritten has to be fetched, from wherever it is in the tree.
    for row, change in (("tree.over", append), ("tree.spoiled", spoil)):
        for p in players:
            # borg writes all files again.
            if not isinstance(p, (Limit, Borg)):
                target = p.place / "restored"
                if not p.failed:
                    change(p.restored(target), p.round + 50)
                bench.time(row, p, p.restore(target), source, check=partial(whole, p, target, wanted))


def take_over(bench: Bench, p: Program, source: Path) -> None:
    if isinstance(p, Limit):
        bench.time("tree.takeover", p, p.read(), source)
        return
    if not isinstance(p, Runner):
        p.move()
        bench.time("tree.takeover", p, p.backup(), source)
        return
    for row, trust in (("tree.takeover", ""), ("tree.mtime", "mtime")):
        p.move()
        before = p.packs()
        bench.time(row, p, p.backup(trust), source, partial(more_packs, p, before))


def run_s3(bench: Bench) -> None:
    source = bench.tree()
    for round_, names in bench.rounds("s3", bench.repeat, limit=False, only=["runner", "restic", "rustic"]):
        server = bench.server(round_)
        players = bench.players("s3", round_, names, source.path, server)
        for p in players:
            bench.time("s3.first", p, p.backup(), source.path, p.sizes)
            # What the client of S3 costs shows only beside a directory in the same minute.
            for beside in bench.players("s3-directory", round_, [p.name], source.path) if isinstance(p, Runner) else []:
                bench.time("s3.directory", beside, beside.backup(), source.path, beside.sizes)
        for p in players:
            bench.time("s3.same", p, p.backup(), source.path)
