"""Half of many snapshots is forgotten, and the space freed."""

import os
import shutil
import signal
import subprocess
import time

from bench import Bench
from inputs import CHANGED_SHARE, make_small, rewrite
from measure import CommandFailed, complaint, execute
from programs import Program

TITLES = {
    "prune.half": "prune after forgetting half of 200 snapshots",
    "prune.beside": "a restore by another node that begins while it prunes",
    "prune.killed": "a backup after a prune that was killed",
}


def run(bench: Bench) -> None:
    sizes, keep = bench.sizes, bench.sizes.snapshots // 2
    # The grace period is the safety of restores under way; without it, space is freed in the run that is timed, as peers do.
    extra = f'keep = {{ last = {keep} }}\nprune_grace = "0s"\n'
    key = (sizes.prune_files, sizes.prune_file_bytes)
    source = bench.input("prune", key, lambda to: make_small(to, *key))
    for _, names in bench.rounds("prune", 1, limit=False):
        masters = bench.players("prune", 99, names, source.path, extra=extra)
        files = sorted(p for p in source.path.rglob("*") if p.is_file())
        print(f"making {sizes.snapshots} snapshots with each program", flush=True)
        for number in range(sizes.snapshots):
            for nth, path in enumerate(files[number % CHANGED_SHARE :: CHANGED_SHARE]):
                rewrite(path, sizes.prune_file_bytes, f"{number}-{nth}-{bench.run}")
            for p in masters:
                back_up(p)
        for round_ in range(bench.repeat):
            for master in masters:
                p = copied(bench, master, "prune", round_)
                bench.time("prune.half", p, p.forget(keep), p.repo if p.repo.exists() else None, p.sizes, round_=round_)
        for master in masters:
            # A restore under way is what the grace period is for.
            beside(bench, copied(bench, master, "beside", extra=extra.replace('"0s"', '"1d"')), keep)
            killed(bench, copied(bench, master, "killed"), keep)


def back_up(p: Program) -> None:
    if not p.failed:
        try:
            p.facts(execute(p.backup(), p.env()).said)
        except CommandFailed as e:
            p.failed = f"cannot make the snapshots: {e}"


def copied(bench: Bench, master: Program, *name: object, extra: str = "") -> Program:
    """The same repository and local state in another place."""
    place = bench.place(*name, master.name)
    shutil.copytree(master.place, place)
    p = type(master)(master.binary, place, master.source, None, extra or master.extra)
    p.failed, p.backups = master.failed, master.backups
    p.configure()
    return p


def beside(bench: Bench, p: Program, keep: int) -> None:
    """Another node restores while this one prunes."""
    if not p.failed:
        target = p.place / "restored"
        target.mkdir()
        pruning = subprocess.Popen(p.forget(keep), env={**os.environ, **p.env()}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        p.node += 1
        bench.time("prune.beside", p, p.restore(target), more=lambda: {"overlapped": int(pruning.poll() is None)})
        said = pruning.communicate()[1]
        if pruning.returncode and not p.failed:
            bench.fail("prune.beside", p, f"the prune beside it failed: {complaint(said)}")
    else:
        bench.fail("prune.beside", p, p.failed)


def killed(bench: Bench, p: Program, keep: int) -> None:
    """It dies in the middle, and the next backup must need no help."""
    usual = bench.book.median("prune.half", p.name, "wall")
    if not p.failed and usual:
        with subprocess.Popen(p.forget(keep), env={**os.environ, **p.env()}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                              start_new_session=True) as pruning:
            time.sleep(usual / 2)
            os.killpg(pruning.pid, signal.SIGKILL)
    bench.time("prune.killed", p, p.backup())
