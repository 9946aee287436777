"""The document and its pictures, out of the book alone."""

import re
import time
from pathlib import Path

import targets
from results import Results
from plot import Line, plot
from rows import large, many, prune, records, tree
from targets import MIB

FACTS = ["stored", "grown", "uploaded", "fetched", "requests", "server_requests", "server_put", "packs"]
COLUMNS = ["runner", "restic", "rustic", "borg", "limit"]
TITLES = {**tree.TITLES, **many.TITLES, **large.TITLES, **prune.TITLES, **records.TITLES}
LIMITS = {**tree.LIMITS, **many.LIMITS, **large.LIMITS}
# Peers have no such choice.
AS = {"tree.mtime": "tree.takeover"}
WORK = {"first": "first backup", "same": "no change", "restore": "restore"}
# What people wrote between these stays when the document is written anew.
BEGIN, END = "<!-- notes: kept by make bench -->", "<!-- end of notes -->"


def table(head: list[str], lines: list[list[str]]) -> list[str]:
    shown = ["| " + " | ".join(line) + " |" for line in [head, *lines]]
    return [shown[0], "|---" * len(head) + "|", *shown[1:], ""]


def cell(book: Results, row: str, program: str, show: str) -> str:
    found = book.of(row, program)
    if not found:
        why = book.failure(row, program)
        return f"**failed**: {why.replace('|', chr(92) + '|')}" if why else "–"
    wall, cpu = (book.median(row, program, what) for what in ("wall", "cpu"))
    if wall is None:
        return "done"
    if show == "time":
        few = "" if len(found) >= 3 else f", of {len(found)}"
        return f"{wall:.2f} ({min(e['wall'] for e in found):.2f}{few})"
    return f"{cpu:.2f} s, {max(e['peak'] for e in found) / MIB:.0f}"


def header(book: Results) -> list[str]:
    identity = dict(book.identity)
    machine = identity.pop("machine", "?")
    identity.pop("inputs", None)
    names = {"settings": "Settings", "records": "Journal", "growth": "Growth", "cold": "Cold", "deleted": "Places", "time": "Measured"}
    lines = [f"- Machine: {machine}; {book.notes.get('filesystem', '')}", f"- Versions: {'; '.join(identity.values())}"]
    lines += [f"- Input `{name.split()[1]}`: {text}" for name, text in sorted(book.notes.items()) if name.startswith("input ")]
    lines += [f"- {title}: {book.notes[name]}" for name, title in names.items() if name in book.notes]
    return lines


SETTINGS = """\
- Care: programs take turns within a row and another one begins in each round; the input is read right before each timing; every repository and every restore is
  in a new place. Figures are medians (best); where a row was timed fewer than three times, the table says so. A program that fails, or restores something
  else than the source, gets no number
- Settings: each program's defaults, encryption and compression on; runner with a key file, the peers with a password (its hash takes them some tenths of a second).
  Peers' nodes share a host name, so that each finds its last snapshot; restic restores with `--overwrite if-changed`, as rustic does by default, and every restore is into a new place;
  pruning frees the space at once everywhere (`prune_grace = "0s"`, rustic's `--instant-delete`)
- S3: `benches/s3_server.py`, a server on loopback with atomic conditional puts, which does little itself: it checks no signatures and
  syncs nothing, for all programs alike. It counts the requests
- `limit` is what plain tools need for about the same; it is named in the row"""


STORE = """\
MiB: all of the repository, what the run added to it (`limit`: what `tar | zstd -3` makes of the changed files), what the program says that it sent and fetched. Requests
as the server counts them (to a directory: as runner does), PUTs among them, and new packs. Medians."""


def growth(book: Results) -> tuple[list[str], dict[str, str]]:
    """The section and the pictures."""
    sizes = sorted({int(m[1]) for row in book.rows() if (m := re.fullmatch(r"growth-(\d+)\..*", row))})
    if not sizes:
        return [], {}
    programs = [p for p in COLUMNS if any(p in book.programs(f"growth-{n}.first") for n in sizes)]
    shown = [[f"{n:,}", p, *(cell_both(book, f"growth-{n}.{work}", p) for work in WORK)]
             for n in sizes for p in programs if p in book.programs(f"growth-{n}.first")]
    section = ["## Growth", "", "Tiny files, each size once: seconds, and the peak in MiB.", "", *table(["files", "program", *WORK.values()], shown)]
    pictures = {}
    for file, title, what, unit, scale in (("growth-time", "Time by number of files", "wall", "seconds", 1.0),
                                           ("growth-memory", "Peak memory by number of files", "peak", "MiB", float(MIB))):
        drawn = []
        for program in programs:
            for colour, (work, name) in enumerate(WORK.items()):
                medians = [(n, book.median(f"growth-{n}.{work}", program, what)) for n in sizes]
                points = [(float(n), m / scale) for n, m in medians if m is not None]
                drawn.append(Line(f"{program}: {name}", colour, program != "runner", points))
        if any(line.points for line in drawn):
            pictures[f"{file}.svg"] = plot(title, "files of 50-400 bytes", unit, drawn)
            section += [f"![{title}]({file}.svg)", ""]
    return section, pictures


def cell_both(book: Results, row: str, program: str) -> str:
    wall, peak = book.median(row, program, "wall"), book.median(row, program, "peak")
    if wall is None or peak is None:
        return f"**failed**: {why}" if (why := book.failure(row, program)) else "–"
    return f"{wall:.2f} s, {peak / MIB:.0f}"


def store_lines(book: Results, rows: list[str]) -> list[list[str]]:
    """What came into the store, and how many requests it took."""
    lines = []
    for row in rows:
        for program in book.programs(row):
            facts = {what: book.median(row, program, what) for what in FACTS}
            if program == "limit":
                facts["grown"] = book.median(row, program, "compressed")
            if any(v is not None for v in facts.values()):
                asked = facts["server_requests"] if facts["server_requests"] is not None else facts["requests"]
                mib = [f"{v / MIB:.2f}" if v is not None else "–" for v in (facts[k] for k in ("stored", "grown", "uploaded", "fetched"))]
                counts = [f"{v:.0f}" if v is not None else "–" for v in (asked, facts["server_put"], facts["packs"])]
                lines.append([TITLES[row], program, *mib, *counts])
    return lines


def document(book: Results, notes: str) -> tuple[str, dict[str, str]]:
    rows = [row for row in TITLES if row in book.rows()]
    judged = targets.judged(book)
    lines = ["# Benchmarks", "", "Written by `make bench`: every program on the same input, in turns.", "", *header(book), SETTINGS, ""]
    lines += ["## Targets", "", *table(["work", "target", "limit", "measured", ""], [
        [t.work, t.name, f"≤ {t.limit:g} {t.unit}", found, state] for t, found, state in judged])]
    count = {state: sum(1 for _, _, s in judged if s.startswith(state)) for state in ("met", "**missed**", "not measured")}
    lines += [f"{count['met']} met, {count['**missed**']} missed, {count['not measured']} not measured.", "", BEGIN, notes, END, ""]
    lines += ["## Time", "", "Seconds of wall time: median (best). Against the best peer: below 1 is faster.", ""]
    timed = []
    for row in rows:
        try:
            against = f"{targets.Values(book).against_best(row, AS.get(row, row)):.2f}"
        except targets.NotMeasured:
            against = "–"
        title = TITLES[row] + (f" (limit: {LIMITS[row]})" if row in LIMITS else "")
        timed.append([title, *(cell(book, row, p, "time") for p in COLUMNS), against])
    lines += table(["work", *COLUMNS, "against the best peer"], timed)
    lines += ["## CPU and memory", "", "CPU seconds (user and system, median), and the peak of the largest process in MiB (worst).", ""]
    lines += table(["work", *COLUMNS], [[TITLES[row], *(cell(book, row, p, "cpu") for p in COLUMNS)] for row in rows])
    lines += ["## Store", "", STORE, ""]
    lines += table(["work", "program", "stored", "added", "sent", "fetched", "requests", "PUTs", "packs"], store_lines(book, rows))
    section, pictures = growth(book)
    return "\n".join([*lines, *section]).rstrip() + "\n", pictures


def write(book: Results, out: Path) -> None:
    """Writes `BENCHMARKS.md` and the pictures into `out`, and keeps the notes that stand there."""
    file = out / "BENCHMARKS.md"
    old = file.read_text() if file.exists() else ""
    kept = old.split(BEGIN, 1)[1].split(END, 1)[0].strip("\n") if BEGIN in old and END in old else ""
    text, pictures = document(book, kept)
    out.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    for name, picture in pictures.items():
        (out / name).write_text(picture)


def today() -> str:
    return time.strftime("%Y-%m-%d", time.gmtime())
