"""The results: a line of JSON each, appended as they come, so that a run can go on and several runs make one report."""

import json
import statistics
from pathlib import Path
from typing import Any

from tools import MissingTool

Entry = dict[str, Any]


class Results:
    """All results of a work directory. The last one for a row, program and round counts."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.identity: dict[str, str] = {}
        self.notes: dict[str, str] = {}
        self.results: dict[tuple[str, str, int], Entry] = {}
        self.done: set[tuple[str, str, int]] = set()
        for line in file.read_text().splitlines() if file.exists() else []:
            try:
                self.take(json.loads(line))
            except json.JSONDecodeError:
                continue  # The end of a run that was stopped while it wrote.

    def take(self, entry: Entry) -> None:
        if "identity" in entry:
            self.identity.update(entry["identity"])
        elif "note" in entry:
            self.notes[entry["note"]] = entry["text"]
        elif "done" in entry:
            self.done.add((entry["done"], entry["program"], entry["round"]))
        else:
            self.results[entry["row"], entry["program"], entry["round"]] = entry

    def write(self, entry: Entry) -> None:
        self.take(entry)
        with self.file.open("a") as f:
            f.write(json.dumps(entry) + "\n")

    def same(self, now: dict[str, str]) -> None:
        """Refuses to mix what was measured elsewhere or with other programs."""
        for key in self.identity.keys() & now.keys():
            if self.identity[key] != now[key]:
                raise MissingTool(f"{self.file} was measured with {key} {self.identity[key]!r}, and this is {now[key]!r}: "
                              "take another --work, or remove that file")
        if now.keys() - self.identity.keys():
            self.write({"identity": now})

    def note(self, name: str, text: str) -> None:
        if self.notes.get(name) != text:
            self.write({"note": name, "text": text})

    def of(self, row: str, program: str) -> list[Entry]:
        """The results that are numbers."""
        return [e for (r, p, _), e in sorted(self.results.items(), key=lambda i: i[0]) if (r, p) == (row, program) and "failed" not in e]

    def failure(self, row: str, program: str) -> str | None:
        return next((e["failed"] for (r, p, _), e in self.results.items() if (r, p) == (row, program) and "failed" in e), None)

    def rows(self) -> list[str]:
        return list(dict.fromkeys(row for row, _, _ in self.results))

    def programs(self, row: str) -> list[str]:
        return list(dict.fromkeys(p for r, p, _ in self.results if r == row))

    def median(self, row: str, program: str, what: str) -> float | None:
        found = [e[what] for e in self.of(row, program) if what in e]
        return statistics.median(found) if found else None
