"""Gets the programs to compare with, and what measures the limits."""

import hashlib
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from measure import run

PROJECT = Path(__file__).resolve().parent.parent
TOOLS = PROJECT / ".tools"
RUSTIC = "0.11.4"
RESTIC_AT_LEAST = (0, 18)


class MissingTool(Exception):
    """What somebody has to do before it works."""


def version(path: str | Path, *args: str) -> str | None:
    try:
        return subprocess.run([str(path), *args], capture_output=True, text=True, check=True).stdout.split("\n")[0].strip(" *")
    except (OSError, subprocess.CalledProcessError):
        return None


def restic_version(path: str | Path) -> tuple[int, ...]:
    text = version(path, "version")
    if not text or not text.startswith("restic "):
        return (0,)
    return tuple(int(n) for n in text.split()[1].split("-")[0].split(".")[:2])


def get_restic() -> str:
    """restic of at least 0.18: the machine's own, or Debian 13's package, which unpacks and runs anywhere."""
    own = TOOLS / "restic" / "usr" / "bin" / "restic"
    for path in (own, shutil.which("restic")):
        if path and restic_version(path) >= RESTIC_AT_LEAST:
            return str(path)
    # Another release's package, fetched by apt from the mirror that this machine uses, with lists and settings of their own
    # so that the machine's apt never hears of it.
    wanted = ".".join(map(str, RESTIC_AT_LEAST))
    if not shutil.which("apt-get"):
        raise MissingTool(f"restic {wanted} or newer is not here, and there is no apt-get to fetch it: install it")
    listed = run("apt-get", "indextargets", "--format", "$(ORIGIN)|$(REPO_URI)", "Created-By: Packages", capture_output=True)
    mirrors = [line.split("|")[1] for line in listed.stdout.splitlines() if line.startswith("Debian|") and "security" not in line]
    if not mirrors:
        raise MissingTool(f"restic {wanted} or newer is not here, and this machine has no Debian mirror: install it")
    apt = TOOLS / "apt"
    for part in ("lists/partial", "archives/partial"):
        (apt / part).mkdir(parents=True, exist_ok=True)
    keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
    (apt / "sources.list").write_text(f"deb [signed-by={keyring}] {mirrors[0]} trixie main\n")
    options = ["-o", f"Dir::Etc::sourcelist={apt}/sources.list", "-o", "Dir::Etc::sourceparts=-", "-o", f"Dir::State::lists={apt}/lists",
               "-o", f"Dir::Cache={apt}", "-o", f"Dir::Cache::archives={apt}/archives", "-o", "APT::Sandbox::User=root"]
    run("apt-get", "-qq", *options, "update")
    run("apt-get", "-qq", *options, "download", "restic", cwd=apt)
    package = max(apt.glob("restic_*.deb"), key=lambda p: p.stat().st_mtime)
    run("dpkg-deb", "-x", package, TOOLS / "restic")
    return str(own)


def from_crates(crate: str, binary: str, wanted: str, note: str) -> str:
    own = TOOLS / "bin" / binary
    if not own.exists():
        print(f"compiling {crate} {wanted} ({note})", flush=True)
        run("cargo", "install", crate, "--version", wanted, "--locked", "--quiet", "--root", TOOLS, "--target-dir", TOOLS / "build")
        shutil.rmtree(TOOLS / "build", ignore_errors=True)
    return str(own)


def get_rustic() -> str:
    return from_crates("rustic-rs", "rustic", RUSTIC, "ten minutes and more on two cores")


def get_b3sum() -> str:
    """Of the version of BLAKE3 that runner is built with."""
    found = re.search(r'name = "blake3"\nversion = "(.*?)"', (PROJECT / "Cargo.lock").read_text())
    assert found
    return shutil.which("b3sum") or from_crates("b3sum", "b3sum", found[1], "a minute")


def by_apt(package: str, binary: str) -> str:
    found = shutil.which(binary)
    if not found:
        root = [] if os.geteuid() == 0 else ["sudo", "-n"]
        try:
            run(*root, "apt-get", "-qq", "install", "-y", "--no-install-recommends", package, stdout=subprocess.DEVNULL,
                env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})
        except (OSError, subprocess.CalledProcessError):
            raise MissingTool(f"{binary} is not here and apt-get could not install {package}: install it") from None
        found = shutil.which(binary)
    return str(found)


GET: dict[str, Callable[[], str]] = {
    "restic": get_restic,
    "rustic": get_rustic,
    "borg": lambda: by_apt("borgbackup", "borg"),
    "b3sum": get_b3sum,
    "zstd": lambda: by_apt("zstd", "zstd"),
}


def identity(binaries: dict[str, str]) -> dict[str, str]:
    """What results must have in common to stand in one table."""
    found = {"machine": machine()}
    for name, path in binaries.items():
        found[name] = version(path, "version" if name == "restic" else "--version") or "?"
    with open(binaries["runner"], "rb") as binary:
        found["runner"] += f" (SHA-256 {hashlib.file_digest(binary, 'sha256').hexdigest()[:16]})"
    return found


def machine() -> str:
    info = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(":")[1].strip() for line in info if line.startswith("model name")), platform.machine())
    memory = int(Path("/proc/meminfo").read_text().split()[1]) / 2**20
    return f"{cpu}, {len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB of memory, Linux {platform.release()}"


def filesystem(place: Path) -> str:
    return run("df", "--output=fstype", place, capture_output=True).stdout.split()[-1]
