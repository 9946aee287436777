"""One benchmark run: whose turn it is, where each works, and what comes into the book."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import inputs
import space
from results import Results
from inputs import Input, Sizes
from measure import CommandFailed, execute, warm
from programs import PROGRAMS, Limit, Program
from s3_process import S3Process
from tools import MissingTool, filesystem

# ext4 without a journal does not use an inode again for five minutes after a deletion and searches past all of them meanwhile:
# files are created up to ten times more slowly.
SETTLE_SECONDS = 310

More = Callable[[], dict[str, float]]


class Bench:
    """The programs, the inputs and the places of one run."""

    def __init__(self, book: Results, binaries: dict[str, str], names: list[str], work: Path, sizes: Sizes, repeat: int,
                 trees: list[Path], quick: bool) -> None:
        self.book, self.binaries, self.names, self.work, self.sizes = book, binaries, names, work, sizes
        self.repeat, self.trees, self.quick = repeat, trees, quick
        self.run = f"{os.getpid()}"
        self.places: list[Path] = []
        self.servers: list[S3Process] = []
        # Its time is that of the last deletion, also for the next run.
        self.deleted = work / "deleted"
        self.slow_after_deletion = not quick and filesystem(work) == "ext4"
        if (work / "places").exists():
            print("deleting what a run that was killed has left", flush=True)
            self.clear()

    # ---- inputs

    def input(self, name: str, key: object, make: Callable[[Path], str], bytes_: float = 0) -> Input:
        if not (self.work / "inputs" / f"{name}.json").exists():
            self.make_room(f"the input {name}", bytes_)
            self.settle()
        found = inputs.prepared(self.work, name, str(key), make)
        self.book.note(f"input {name}", found.text())
        return found

    def tree(self) -> Input:
        key = ([str(t) for t in self.trees], self.sizes.tree_files, self.sizes.tree_bytes)
        return self.input("tree", key, lambda to: inputs.make_tree(to, self.sizes, self.trees), space.tree_on_disk(self.sizes))

    def tiny(self, count: int) -> Input:
        return self.input(f"tiny-{count}", count, lambda to: inputs.make_tiny(to, count), count * inputs.SMALL_ON_DISK)

    # ---- places

    def place(self, *names: object) -> Path:
        """A path that is not there yet."""
        place = self.work / "places" / "-".join(map(str, [*names, self.run]))
        shutil.rmtree(place, ignore_errors=True)
        place.parent.mkdir(exist_ok=True)
        self.places.append(place)
        return place

    def room(self, bytes_: float) -> bool:
        """Whether there is room; deletes what earlier rounds left, only if there is none otherwise."""
        if space.free(self.work) >= bytes_:
            return True
        if not self.places:
            return False
        self.clear()
        self.book.note("deleted", f"the disk had no room for all repositories and restores at once, so those of earlier rounds were deleted between "
                       f"rounds, and no restore was timed within {SETTLE_SECONDS} s after that")
        return space.free(self.work) >= bytes_

    def make_room(self, what: str, bytes_: float) -> None:
        if not self.room(bytes_):
            raise MissingTool(f"{what}: {space.text(bytes_)} are needed below {self.work}, {space.text(space.free(self.work))} are free")

    def settle(self) -> None:
        """Waits until a deletion does not slow down the creation of files any more."""
        if self.slow_after_deletion and self.deleted.exists():
            left = SETTLE_SECONDS - (time.time() - self.deleted.stat().st_mtime)
            if left > 0:
                print(f"waiting {left:.0f} s for the file system after a deletion", flush=True)
                time.sleep(left)

    def clear(self) -> None:
        for server in self.servers:
            server.stop()
        shutil.rmtree(self.work / "places", ignore_errors=True)
        os.sync()
        self.deleted.touch()
        self.servers, self.places = [], []

    def server(self, *names: object) -> S3Process:
        server = S3Process(self.place("s3", *names))
        self.servers.append(server)
        return server

    # ---- turns

    def rounds(self, group: str, repeat: int, *, limit: bool = True, only: list[str] | None = None,
               bytes_: int | None = None) -> Iterator[tuple[int, list[str]]]:
        """The rounds of a group and who plays: those that have not done it in an earlier run."""
        wanted = [n for n in self.names if only is None or n in only] + (["limit"] if limit else [])
        for round_ in range(repeat):
            names = [n for n in wanted if (group, n, round_) not in self.book.done]
            if not names:
                continue
            self.make_room(group, space.round_bytes(group, self.sizes, names) if bytes_ is None else bytes_)
            # Another one begins in each round.
            turn = round_ % len(names)
            yield round_, names[turn:] + names[:turn]
            for name in names:
                self.book.write({"done": group, "program": name, "round": round_})

    def players(self, group: str, round_: int, names: list[str], source: Path, server: S3Process | None = None, extra: str = "") -> list[Program]:
        players = []
        for name in names:
            kind = Limit if name == "limit" else PROGRAMS[name]
            player = kind(self.binaries.get(name, ""), self.place(group, round_, name), source, server, extra)
            player.round = round_
            players.append(player)
            try:
                player.setup()
            except CommandFailed as e:
                player.failed = f"cannot begin: {e}"
        return players

    def fail(self, row: str, player: Program, why: str) -> None:
        self.book.write({"row": row, "program": player.name, "round": player.round, "failed": why})
        print(f"{player.round}  {row:24} {player.name:8} FAILED: {why}", flush=True)

    def time(self, row: str, player: Program, command: list[str], read: Path | None = None, more: More | None = None,
             check: Callable[[], bool] | None = None, round_: int | None = None) -> None:
        """One figure of one program. `read` is read first, `check` says whether the outcome is right, `more` adds facts."""
        if round_ is not None:
            player.round = round_
        if player.failed:
            self.fail(row, player, player.failed)
            return
        try:
            if read:
                warm(read)
            if player.server:
                player.server.requests()
            usage = execute(command, player.env())
            facts = {"wall": usage.wall, "cpu": usage.cpu, "peak": usage.peak, **player.facts(usage.said)}
            if player.server:
                facts |= player.server.requests()
            if check and not check():
                raise CommandFailed("restored something else than the source")
            facts |= more() if more else {}
        except CommandFailed as e:
            player.failed = f"did not get this far: {e}"
            self.fail(row, player, str(e))
            return
        self.book.write({"row": row, "program": player.name, "round": player.round, **facts})
        print(f"{player.round}  {row:24} {player.name:8} {usage.wall:9.2f} s  cpu {usage.cpu:8.2f} s  {usage.peak / 2**20:6.0f} MiB", flush=True)
