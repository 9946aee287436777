"""Runs one command and takes from the kernel what it used."""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

# The kernel counts what a process used before its `exec` into the peak of the program, so it is started by an interpreter
# that is as small as one can be (9 MiB), not by this one with its lists.
STARTER = """
import os, sys, time
out, err = (os.open(name, os.O_WRONLY) for name in sys.argv[1:3])
start = time.monotonic()
try:
    child = os.posix_spawnp(sys.argv[3], sys.argv[3:], os.environ, file_actions=[
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0), (os.POSIX_SPAWN_DUP2, out, 1), (os.POSIX_SPAWN_DUP2, err, 2)])
except OSError as e:
    print("does not start: " + e.strerror)
    sys.exit()
_, status, usage = os.wait4(child, 0)
print(os.waitstatus_to_exitcode(status), time.monotonic() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)
"""


class CommandFailed(Exception):
    """A program that could not do a row; the text goes into the table."""


class Usage:
    """What a run took: seconds of wall time and CPU (it and what it waited for), the peak of its largest process in bytes."""

    def __init__(self, wall: float, cpu: float, peak: float, said: str) -> None:
        self.wall, self.cpu, self.peak, self.said = wall, cpu, peak, said


def complaint(said: str) -> str:
    """The line that says what is wrong, of all that a program says."""
    lines = [line.strip() for line in said.strip().splitlines() if line.strip()] or ["no word"]
    return next((line for line in lines if re.search(r"\b(error|fatal|unable|locked)\b", line, re.IGNORECASE)), lines[-1])[:200]


def run(*args: object, **more: object) -> "subprocess.CompletedProcess[str]":
    """A helper's command, which must succeed."""
    return subprocess.run([str(a) for a in args], check=True, text=True, **more)  # type: ignore[call-overload,no-any-return]


def execute(command: list[str], env: dict[str, str] | None = None) -> Usage:
    """Runs it to its end."""
    with tempfile.NamedTemporaryFile() as out, tempfile.NamedTemporaryFile() as err:
        starter = [sys.executable, "-I", "-S", "-c", STARTER, out.name, err.name, *command]
        answer = run(*starter, capture_output=True, env={**os.environ, **(env or {})}).stdout.strip()
        try:
            code, wall, cpu, peak = map(float, answer.split())
        except ValueError:
            raise CommandFailed(f"{command[0]}: {answer}") from None
        said = out.read().decode(errors="replace")
        if code != 0:
            raise CommandFailed(f"exit code {code:.0f}: {complaint(err.read().decode(errors='replace') or said)}")
    return Usage(wall, cpu, peak, said)


def warm(tree: Path) -> None:
    """Reads all of it: on some machines memory that was not used for a while goes cold."""
    run("sh", "-c", 'find "$1" -type f -print0 | xargs -0 -r -n 200 cat >/dev/null', "sh", tree)


def regular(tree: Path) -> Iterator[os.DirEntry[str]]:
    """Its regular files, in the order of their names."""
    with os.scandir(tree) as found:
        entries = sorted(found, key=lambda e: e.name)
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from regular(Path(entry.path))
        elif entry.is_file(follow_symlinks=False):
            yield entry


def tally(tree: Path) -> tuple[int, int, int]:
    """Entries, regular files, and their bytes: what a restore must give back."""
    entries = files = size = 0
    todo = [str(tree)]
    while todo:
        with os.scandir(todo.pop()) as found:
            for entry in found:
                entries += 1
                if entry.is_dir(follow_symlinks=False):
                    todo.append(entry.path)
                elif entry.is_file(follow_symlinks=False):
                    files += 1
                    size += entry.stat(follow_symlinks=False).st_size
    return entries, files, size


def stored(place: Path) -> int:
    """Bytes of all files below."""
    return tally(place)[2] if place.exists() else 0


def compressed(root: Path, files: Iterable[str]) -> int:
    """What `tar | zstd -3` makes of these files below `root`."""
    names = "\0".join(os.path.relpath(f, root) for f in files).encode()
    with tempfile.NamedTemporaryFile() as listed:
        listed.write(names)
        listed.flush()
        pipe = run("sh", "-c", 'tar -C "$1" --null -T "$2" -cf - | zstd -3 -q -c | wc -c', "sh", root, listed.name, capture_output=True)
    return int(pipe.stdout)
