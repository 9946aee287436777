"""Makes what is backed up. The same sizes give the same content; a tree that is complete has a stamp and is used again."""

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from measure import regular, tally

SEED = 20
CHANGED_SHARE = 100
APPENDED = 100
FILES_IN_DIR = 250
TINY_MIN, TINY_MAX = 50, 400
PLACES, PLACE_BYTES = 16, 512 << 10
# What a small file takes on a disk, with its share of the directory.
SMALL_ON_DISK = 4096 + 128


@dataclass(frozen=True)
class Sizes:
    """How large the inputs are."""

    tree_files: int = 118_000
    tree_bytes: int = 2_800_000_000
    tiny: int = 1_000_000
    large: int = 8_000_000_000
    growth: tuple[int, ...] = (10_000, 100_000, 1_000_000, 5_000_000)
    prune_files: int = 2_000
    prune_file_bytes: int = 20_000
    snapshots: int = 200
    records: int = 10_000

    def quick(self) -> "Sizes":
        return replace(self, tree_files=1200, tree_bytes=12_000_000, tiny=2000, large=64_000_000, growth=(100, 1000, 2000, 4000),
                       prune_files=200, snapshots=10, records=60)


def sources() -> list[Path]:
    cargo = Path(os.environ.get("CARGO_HOME", Path.home() / ".cargo"))
    return [p for p in (cargo / "registry/src", Path("/usr/share"), Path("/usr/lib"), Path("/usr/include"), Path("/opt")) if p.is_dir()]


def make_tree(to: Path, limits: Sizes, given: list[Path]) -> str:
    """Copies regular files in the order of their names, until there are enough; without `given`, of what the machine has."""
    files = size = 0
    used: list[str] = []
    for number, source in enumerate(given or sources()):
        for entry in regular(source):
            try:
                stat = entry.stat(follow_symlinks=False)
                if not given and files == limits.tree_files:
                    break
                if not given and size + stat.st_size > limits.tree_bytes:
                    continue
                path = to / str(number) / os.path.relpath(entry.path, source)
                path.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(entry.path, path)
                os.utime(path, ns=(stat.st_mtime_ns, stat.st_mtime_ns))
            except (PermissionError, FileNotFoundError):
                continue
            files, size = files + 1, size + stat.st_size
            if str(source) not in used:
                used.append(str(source))
    home = str(Path.home())
    return "copied from " + ", ".join(u.replace(home, "~") for u in used)


def tiny_dirs(to: str, first: int, last: int, count: int) -> None:
    """Directories `first..last` of `FILES_IN_DIR` files each, with text that says little and is never the same."""
    words = [f"{n * 7919 % 65521:x}" for n in range(400)] + "the of and to in is was for that with at by name value true null".split() * 20  # noqa: SIM905
    for number in range(first, last):
        dice = random.Random(f"{SEED}-{number}")
        soup = " ".join(dice.choices(words, k=4000)).encode()
        at = os.path.join(to, f"{number // 100:03}", f"{number:05}")
        os.makedirs(at)
        for n in range(number * FILES_IN_DIR, min(count, (number + 1) * FILES_IN_DIR)):
            length = dice.randrange(TINY_MIN, TINY_MAX + 1)
            start = dice.randrange(len(soup) - TINY_MAX)
            head = b'{"id":%d,"key":"%016x","text":"' % (n, dice.getrandbits(64))
            file = os.open(f"{at}/{n:07}.json", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            os.write(file, (head + soup[start : start + TINY_MAX])[:length])
            os.close(file)


def make_tiny(to: Path, count: int) -> str:
    dirs = -(-count // FILES_IN_DIR)
    step = 100  # The directories of one parent belong to one process.
    with ProcessPoolExecutor() as pool:
        for done in [pool.submit(tiny_dirs, str(to), first, min(dirs, first + step), count) for first in range(0, dirs, step)]:
            done.result()
    return f"{TINY_MIN}-{TINY_MAX} bytes of text each, {FILES_IN_DIR} in a directory, seed {SEED}"


def make_large(to: Path, size: int) -> str:
    """Blocks of which a part is noise, a part is noise in hexadecimal, and the rest is there already: 2.3 : 1 and never the same."""
    dice, part = random.Random(SEED), 64 << 10
    with (to / "image").open("wb") as out:
        for _ in range(-(-size // (4 * part))):
            noise = dice.randbytes(part)
            out.write(noise + noise[: part // 2].hex().encode() + noise + noise)
        out.truncate(size)
    return f"one file of {size / 1e9:.3g} GB, 2.3 : 1 under zstd, seed {SEED}"


def make_small(to: Path, files: int, size: int) -> str:
    for number in range(files):
        path = to / f"{number // 100:03}" / f"{number:06}"
        path.parent.mkdir(exist_ok=True)
        rewrite(path, size, f"{SEED}-{number}")
    return f"{files:,} files of {size:,} bytes, half of them noise, seed {SEED}"


def rewrite(path: Path, size: int, seed: str) -> None:
    dice = random.Random(seed)
    noise = dice.randbytes(size // 3)
    path.write_bytes((noise + noise.hex().encode())[:size])


@dataclass
class Input:
    """A tree that is there."""

    path: Path
    entries: int
    files: int
    bytes: int
    how: str

    def tally(self) -> tuple[int, int, int]:
        return self.entries, self.files, self.bytes

    def text(self) -> str:
        return f"{self.files:,} files in {self.entries:,} entries, {self.bytes / 1e9:.2f} GB: {self.how}"


def prepared(work: Path, name: str, key: str, make: Callable[[Path], str]) -> Input:
    """The input `name`, made by `make(path)` unless it is there, complete, and of the same `key`."""
    at, stamp = work / "inputs" / name, work / "inputs" / f"{name}.json"
    if stamp.exists():
        found = json.loads(stamp.read_text())
        if found.pop("key") == key and tally(at) == (found["entries"], found["files"], found["bytes"]):
            return Input(at, **found)
    stamp.unlink(missing_ok=True)
    shutil.rmtree(at, ignore_errors=True)
    at.mkdir(parents=True)
    print(f"making the input {name}", flush=True)
    how = make(at)
    made = Input(at, *tally(at), how)
    stamp.write_text(json.dumps({"key": key, "entries": made.entries, "files": made.files, "bytes": made.bytes, "how": how}))
    return made


def hundredth(tree: Path, round_: int) -> list["os.DirEntry[str]"]:
    """Every hundredth file, others in each round."""
    return [*regular(tree)][round_ % CHANGED_SHARE :: CHANGED_SHARE]


def append(tree: Path, round_: int) -> list[tuple[str, os.stat_result]]:
    """Writes something at the end of every hundredth file; says what they were."""
    chosen = [(e.path, e.stat()) for e in hundredth(tree, round_)]
    for number, (path, _) in enumerate(chosen):
        with open(path, "ab") as f:
            f.write((f"{round_} {number} " * APPENDED)[:APPENDED].encode())
    return chosen


def spoil(tree: Path, round_: int) -> None:
    """Writes other bytes over the beginning of every hundredth file."""
    for number, entry in enumerate(hundredth(tree, round_)):
        with open(entry.path, "r+b") as f:
            f.write(random.Random(f"{round_}-{number}").randbytes(min(APPENDED, entry.stat().st_size)))


@contextmanager
def appended(tree: Path, round_: int) -> Iterator[list[str]]:
    """Every hundredth file with something at its end, and later as it was."""
    chosen = append(tree, round_)
    try:
        yield [path for path, _ in chosen]
    finally:
        for path, stat in chosen:
            os.truncate(path, stat.st_size)
            os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def overwrite(file: Path, round_: int) -> None:
    """Noise in as many places, one in each part of the file."""
    dice = random.Random(f"{SEED}-{round_}-{os.getpid()}")
    part = file.stat().st_size // PLACES
    with file.open("r+b") as out:
        for number in range(PLACES):
            out.seek(number * part + dice.randrange(max(1, part - PLACE_BYTES)))
            out.write(dice.randbytes(min(PLACE_BYTES, part)))
