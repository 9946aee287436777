"""The targets, one line each: what is compared, how it comes out of the book, and the limit."""

from collections.abc import Callable
from dataclasses import dataclass

from results import Results

PEERS = ["restic", "rustic", "borg"]
MIB = 1 << 20
# What a first backup puts beside the packs: index, records of the takeover and of the snapshot, this node's sign of life, a
# conditional put that must be refused.
PUTS_BESIDE = 16


class NotMeasured(Exception):
    """Why there is no figure."""


class Values:
    """Medians out of the book."""

    def __init__(self, book: Results) -> None:
        self.book = book

    def of(self, row: str, what: str = "wall", program: str = "runner") -> float:
        found = self.book.median(row, program, what)
        if found is None:
            failure = self.book.failure(row, program)
            raise NotMeasured(f"{program} failed: {failure}" if failure else f"{program}: {row} was not run")
        return float(found)

    def worst(self, row: str, what: str = "peak", program: str = "runner") -> float:
        self.of(row, what, program)
        return max(float(e[what]) for e in self.book.of(row, program) if what in e)

    def best(self, row: str, peers: list[str] = PEERS) -> float:
        found = [m for p in peers if (m := self.book.median(row, p, "wall")) is not None]
        if not found:
            raise NotMeasured(f"no peer did {row}")
        return min(found)

    def against_limit(self, row: str) -> float:
        return self.of(row) / self.of(row, program="limit")

    def against_best(self, row: str, other: str = "", peers: list[str] = PEERS) -> float:
        return self.of(row) / self.best(other or row, peers)

    def refused(self, row: str) -> int:
        if "runner" not in self.book.programs(row):
            raise NotMeasured(f"runner: {row} was not run")
        return int(self.book.failure(row, "runner") is not None)

    def peak(self) -> float:
        peaks = [e["peak"] for (_, program, _), e in self.book.results.items() if program == "runner" and "peak" in e]
        if not peaks:
            raise NotMeasured("nothing was run")
        return float(max(peaks))


@dataclass(frozen=True)
class Target:
    """A line of the first table."""

    work: str
    name: str
    limit: float
    compute: Callable[[Values], float]
    unit: str = "×"


def growth_per_file(v: Values) -> float:
    sizes = sorted(int(row.split("-")[1].split(".")[0]) for row in v.book.rows() if row.startswith("growth-") and row.endswith(".same"))
    if len(sizes) < 2:
        raise NotMeasured("fewer than two sizes of growth were run")
    first, last = sizes[-2:]
    return (v.worst(f"growth-{last}.same") - v.worst(f"growth-{first}.same")) / (last - first)


def looking(verb: str, which: str, how: str, limit: int) -> Target:
    return Target(LONG, f"`{verb}`, {how} (worst)", limit, lambda v: v.worst(f"records.{verb}.{which}", "server_requests"), "requests")


def over(row: str, how: str) -> list[Target]:
    return [
        Target(OVER, f"{how}: time ÷ a full restore", 0.25, lambda v: v.of(row) / v.of("tree.restore")),
        Target(OVER, f"{how}: fetched bytes, of a full restore's", 2, lambda v: 100 * v.of(row, "fetched") / v.of("tree.restore", "fetched"), "%"),
    ]


FIRST, TAKEOVER = "first backup, 118 k files, to a directory", "takeover, no local state"
RESTORE, OVER = "restore to a new directory", "restore over a tree where 1 % of the files differ"
S3, SAME, MILLION = "first backup to S3 on loopback", "no change, 118 k files", "no change, a million files"
LARGE, LONG = "8 GB file, 16 places of 512 KiB overwritten", "10,000 journal records"

TARGETS = [
    Target(FIRST, "time ÷ restic", 0.30, lambda v: v.of("tree.first") / v.of("tree.first", program="restic")),
    Target(FIRST, "time ÷ `tar \\| zstd -3 -T2`", 0.80, lambda v: v.against_limit("tree.first")),
    Target(FIRST, "stored bytes ÷ rustic's", 0.72, lambda v: v.of("tree.first", "stored") / v.of("tree.first", "stored", "rustic")),
    Target(S3, "time ÷ the better of restic and rustic", 0.35, lambda v: v.against_best("s3.first", peers=["restic", "rustic"])),
    Target(S3, "client CPU seconds per GB stored, above the same to a directory", 0.25,
           lambda v: (v.of("s3.first", "cpu") - v.of("s3.directory", "cpu")) / (v.of("s3.first", "stored") / 1e9), "s/GB"),
    Target(SAME, "time ÷ `find -printf`", 1.0, lambda v: v.against_limit("tree.same")),
    Target(SAME, "time ÷ the best peer", 0.2, lambda v: v.against_best("tree.same")),
    Target(MILLION, "time ÷ `find -printf`", 0.7, lambda v: v.against_limit("tiny.same")),
    Target(MILLION, "time ÷ the best peer", 0.12, lambda v: v.against_best("tiny.same")),
    Target(MILLION, "peak memory (worst)", 64, lambda v: v.worst("tiny.same") / MIB, "MiB"),
    Target("first backup, a million tiny files", "time ÷ the best peer", 0.10, lambda v: v.against_best("tiny.first")),
    Target("1 % changed", "time ÷ the best peer", 0.35, lambda v: v.against_best("tree.append")),
    Target("1 % changed", "uploaded bytes ÷ the changed files under `tar \\| zstd -3`", 1.5,
           lambda v: v.of("tree.append", "uploaded") / v.of("tree.append", "compressed", "limit")),
    Target(TAKEOVER, '`takeover_trust = "mtime"`: time ÷ the best peer', 0.25,
           lambda v: v.of("tree.mtime") / v.best("tree.takeover")),
    Target(TAKEOVER, "default (re-hash): time ÷ reading the data once (`cat`)", 1.3, lambda v: v.against_limit("tree.takeover")),
    Target(TAKEOVER, "packs uploaded, both ways (worst)", 0,
           lambda v: max(v.worst("tree.takeover", "packs"), v.worst("tree.mtime", "packs")), "packs"),
    Target(LARGE, "time ÷ `b3sum --num-threads 2`", 3, lambda v: v.against_limit("large.changed")),
    Target(LARGE, "uploaded bytes, of the file", 1,
           lambda v: 100 * v.of("large.changed", "uploaded") / v.of("large.changed", "read"), "%"),
    Target(RESTORE, "time ÷ `zstd -dc \\| tar x`", 0.6, lambda v: v.against_limit("tree.restore")),
    Target(RESTORE, "time ÷ the best peer", 0.6, lambda v: v.against_best("tree.restore")),
    *(target for row, how in (("tree.over", "appended to"), ("tree.spoiled", "overwritten at the beginning")) for target in over(row, how)),
    Target("peak memory", "of any run of runner in this report", 160, lambda v: v.peak() / MIB, "MiB"),
    Target("peak memory", "one file of 8 GB ÷ 118 k files, first backup (limit of this benchmark)", 1.25,
           lambda v: v.worst("large.first") / v.worst("tree.first")),
    Target("peak memory", "unchanged run, bytes more for each file more (limit of this benchmark: an index entry)", 64, growth_per_file, "B"),
    Target("S3 requests", "PUTs of a first backup beyond one per 16 MiB stored (the limit is the constant)", PUTS_BESIDE,
           lambda v: v.of("s3.first", "server_put") - v.of("s3.first", "stored") / (16 * MIB), "PUTs"),
    Target("S3 requests", "of an unchanged run (worst)", 8, lambda v: v.worst("s3.same", "server_requests"), "requests"),
    Target("prune after forgetting half of 200 snapshots", "time ÷ restic", 0.3,
           lambda v: v.of("prune.half") / v.of("prune.half", program="restic")),
    Target("prune after forgetting half of 200 snapshots", "without any lock: of a restore beside it and a backup after one that was killed, refused", 0,
           lambda v: float(v.refused("prune.beside") + v.refused("prune.killed")), "of 2"),
    *(looking(verb, which, how, limit) for verb in ("whoami", "snapshots")
      for which, how, limit in (("new", "no local state", 20), ("known", "local state knows the head", 4))),
]


def judged(book: Results) -> list[tuple[Target, str, str]]:
    """Each target with what was measured and whether it is met."""
    values, out = Values(book), []
    for target in TARGETS:
        try:
            found = target.compute(values)
            out.append((target, number(found, target.unit), "met" if found <= target.limit else "**missed**"))
        except NotMeasured as e:
            out.append((target, "–", f"not measured ({e})"))
        except ZeroDivisionError:
            out.append((target, "–", "not measured (nothing to compare with)"))
    return out


def number(value: float, unit: str) -> str:
    text = f"{value:.0f}" if unit in ("packs", "requests", "of 2") else f"{value:.0f}" if value >= 10 else f"{value:.2f}" if abs(value) >= 0.01 else f"{value:.1g}"
    return f"{text} {unit}"
