"""A role whose journal is long: what it costs to look at it."""

from bench import Bench
from inputs import make_small
from measure import CommandFailed, execute
from programs import Runner

TITLES = {
    "records.whoami.new": "`whoami`, no local state",
    "records.whoami.known": "`whoami`, local state knows the head",
    "records.snapshots.new": "`snapshots`, no local state",
    "records.snapshots.known": "`snapshots`, local state knows the head",
}
# So many of the records are snapshots; the others are operators' acts, which cost a process each but no backup.
SNAPSHOTS = 100


def run(bench: Bench) -> None:
    small = bench.input("records", 10, lambda to: make_small(to, 10, 1000))
    for _, names in bench.rounds("records", 1, limit=False, only=["runner"]):
        server = bench.server("records")
        player = bench.players("records", 0, names, small.path, server)[0]
        assert isinstance(player, Runner)
        try:
            snapshots = min(SNAPSHOTS, bench.sizes.records // 4)
            count = fill(bench, player, snapshots)
            bench.book.note("records", f"{count:,} records, made by {snapshots + 1} backups and, between them, by `pause` and `resume` in turns")
        except CommandFailed as e:
            player.failed = f"cannot fill the journal: {e}"
        for round_ in range(bench.repeat):
            for verb in ("whoami", "snapshots"):
                bench.time(f"records.{verb}.new", player, player.call(verb, "app", node=f"new-{verb}-{round_}"), round_=round_)
                bench.time(f"records.{verb}.known", player, player.call(verb, "app"), round_=round_)


def fill(bench: Bench, player: Runner, snapshots: int) -> int:
    wanted = bench.sizes.records
    journal = player.repo / "app" / "journal"
    print(f"making {wanted} journal records", flush=True)
    for number in range(snapshots):
        execute(player.backup(), player.env())
        missing = (number + 1) * wanted // snapshots - sum(1 for _ in journal.iterdir())
        # Each pause is ended.
        for _ in range(missing // 2):
            for verb in ("pause", "resume"):
                execute(player.call(verb, "app"), player.env())
        if number % 10 == 9:
            print(f"  {sum(1 for _ in journal.iterdir())} records", flush=True)
    # So that this node has seen the head.
    execute(player.backup(), player.env())
    return sum(1 for _ in journal.iterdir())
