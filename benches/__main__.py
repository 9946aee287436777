"""Compares runner with restic, rustic and borg in one run and writes docs/BENCHMARKS.md with its pictures.

    python3 benches                          all rows; hours, and as much disk as it says before it begins
    python3 benches --quick                  everything with tiny inputs, once, to the terminal: a trial of the benchmark
    python3 benches --only tree,s3 --work W  some rows; the rest later with the same --work: they go into one report
    python3 benches --report --work W        only the report, from the results in W
    python3 benches --prepare                only gets the programs (rustic compiles for ten minutes)
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import report
import space
import tools
from bench import Bench
from results import Results
from inputs import Sizes
from measure import tally
from programs import PROGRAMS
from rows import large, many, prune, records, tree
from tools import MissingTool

# Rows that create many files come first: a deletion slows them down.
GROUPS: dict[str, tuple[str, Callable[[Bench], None]]] = {
    "tree": ("118 k files, to a directory and back", tree.run),
    "s3": ("the same to S3", tree.run_s3),
    "tiny": ("a million tiny files", many.run),
    "large": ("one file of 8 GB", large.run),
    "prune": ("half of 200 snapshots forgotten", prune.run),
    "records": ("10,000 journal records", records.run),
    "growth": ("10 k to 5 M files", many.run_growth),
}


def names(given: str, known: list[str], option: str) -> list[str]:
    chosen = list(dict.fromkeys(n.strip() for n in given.split(",") if n.strip()))
    for name in chosen:
        if name not in known:
            raise MissingTool(f"{option} does not know {name!r}; it knows {', '.join(known)}")
    return [n for n in known if n in chosen]


def arguments() -> argparse.Namespace:
    rows = "; ".join(f"{name}: {title}" for name, (title, _) in GROUPS.items())
    args = argparse.ArgumentParser(prog="benches", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--runner", default=str(tools.PROJECT / "target/release/runner"), help="the program to compare [default: %(default)s]")
    args.add_argument("--only", default=",".join(GROUPS), metavar="ROW,…", help=rows)
    args.add_argument("--programs", default=",".join(PROGRAMS), metavar="NAME,…", help="which of %(default)s; limits are always measured")
    args.add_argument("--tree", action="append", type=Path, default=[], help="what is copied as the tree, may be given several times [default: what this machine has]")
    args.add_argument("--repeat", type=int, default=3, help="how often each row is timed [default: 3]; growth is timed once")
    args.add_argument("--work", type=Path, help="inputs, repositories, restores and results; inputs and results stay [default: runner-bench in TMPDIR]")
    args.add_argument("--out", type=Path, help="where BENCHMARKS.md and the pictures go [default: docs]")
    args.add_argument("--json", type=Path, metavar="FILE", help="all raw results")
    args.add_argument("--quick", action="store_true", help="tiny inputs, once, to the terminal only")
    args.add_argument("--report", action="store_true", help="writes the report from the results in --work, and runs nothing")
    args.add_argument("--prepare", action="store_true", help="gets the programs, and runs nothing")
    return args.parse_args()


def measure(given: argparse.Namespace, work: Path, book: Results, groups: list[str], programs: list[str]) -> None:
    sizes = Sizes().quick() if given.quick else Sizes()
    if given.tree:
        for path in given.tree:
            if not path.is_dir():
                raise MissingTool(f"--tree {path} is no directory")
        counts = [tally(path) for path in given.tree]
        sizes = Sizes(**{**vars(sizes), "tree_files": sum(c[1] for c in counts), "tree_bytes": sum(c[2] for c in counts)})
    runner = Path(given.runner).resolve()
    if not runner.is_file() or not tools.version(runner, "--version"):
        raise MissingTool(f"{runner} is not there or does not run: build it (make build), or name another with --runner")
    wanted = [n for n in tools.GET if n in programs or n == "zstd" or (n == "b3sum" and "large" in groups)]
    repeat = 1 if given.quick else given.repeat
    said = space.check(work, groups, sizes, programs, repeat)
    print(said, flush=True)
    binaries = {"runner": str(runner), **{name: tools.GET[name]() for name in wanted}}
    inputs = f"{[str(t) for t in given.tree] or 'of this machine'}, {sizes}"
    book.same({**tools.identity(binaries), "inputs": inputs})
    book.note("filesystem", tools.filesystem(work))
    book.note("time", report.today())
    bench = Bench(book, binaries, programs, work, sizes, repeat, [t.resolve() for t in given.tree], given.quick)
    try:
        for group in groups:
            GROUPS[group][1](bench)
    finally:
        print("deleting repositories and restores", flush=True)
        bench.clear()


def main() -> int:
    given = arguments()
    if given.repeat < 1:
        raise MissingTool("--repeat is at least 1")
    groups, programs = names(given.only, list(GROUPS), "--only"), names(given.programs, list(PROGRAMS), "--programs")
    tools.TOOLS.mkdir(exist_ok=True)
    if given.prepare:
        for get in tools.GET.values():
            get()
        return 0
    passing = given.quick and not given.work
    work = Path(tempfile.mkdtemp(prefix="runner-bench-quick.")) if passing else (given.work or Path(tempfile.gettempdir()) / "runner-bench").resolve()
    if work.is_relative_to(tools.PROJECT):
        raise MissingTool(f"--work {work} is inside the project; take another place")
    work.mkdir(parents=True, exist_ok=True)
    try:
        book = Results(work / "results.jsonl")
        if given.report and not book.results:
            raise MissingTool(f"{book.file} has no results")
        if not given.report:
            measure(given, work, book, groups, programs)
        if given.json:
            given.json.write_text(json.dumps({"identity": book.identity, "notes": book.notes, "results": list(book.results.values())}, indent=1) + "\n")
        print("\n" + report.document(book, "")[0])
        if given.out or not given.quick:
            report.write(book, given.out or tools.PROJECT / "docs")
        # A peer that cannot do a row is a line of the report.
        return 1 if any("failed" in e and e["program"] == "runner" for e in book.results.values()) else 0
    finally:
        if passing:
            shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except MissingTool as e:
        sys.exit(f"benches: {e}")
    except KeyboardInterrupt:
        sys.exit("benches: interrupted; run it again with the same --work to go on")
