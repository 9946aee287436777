#!/usr/bin/env python3
"""Runs the case scripts of this directory on a built program, several side by side: `make check-cases`, `make check-cases-slow`.

Every script is a case, once for each line of arguments in ARGUMENTS. A case holds when it exits with 0. `known-failing.txt` names the
cases that do not hold yet, one a line with the reason; one of them that holds is an error as well, so that the list only shrinks.

usage: run.py quick|slow [GLOB]     GLOB picks cases of both, by name (`ha/*`) or file name (`fail-lease*`)
environment: RUNNER, the program; JOBS, how many cases at once; KEEP=1 keeps what the cases wrote.
"""

import fnmatch
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TREE = os.path.dirname(os.path.dirname(HERE))
GROUPS = ("core", "ha", "adv", "sec")

ARGUMENTS = {
    "adv/fail-outage-backoff.py": ["s3 122"],
    "ha/fail-etcd-auth.py": ["revision", "password"],
    "ha/fail-lease-unanswered-looks-like-standby.py": ["503", "reset"],
    "sec/exploit-fifo-lease.sh": ["swap 1", "hold 4"],
}

# About a minute each, or more.
SLOW = {
    "adv/fail-cron-clone.py",
    "adv/fail-daemon-clone.py",
    "adv/fail-headofline.py",
    "adv/fail-outage-backoff.py",
    "ha/fail-etcd-auth.py",
    "ha/fail-s3-credentials-rotated.py",
    "sec/exploit-argon.sh",
    "sec/exploit-daemon-fifo.sh",
    "sec/exploit-fifo-lease.sh",
    "sec/exploit-restore-enospc.sh",
    "sec/exploit-restore-symlink-race.sh",
    "sec/exploit-sparse-extents.sh",
    "sec/exploit-store-huge.sh",
}

# How long a case may take before it is ended, in seconds.
LIMIT = {"quick": 180, "slow": 1800}

# The cases wait for servers and clocks more than they compute; more at once would miss their own times.
JOBS_MAX = 8

# Users that cases act as.
USERS = ("sec1", "secdump")


class Case:
    def __init__(self, file, arguments=""):
        self.file, self.arguments = file, arguments
        self.name = f"{file} {arguments}".strip()
        self.speed = "slow" if self.name in SLOW or self.file in SLOW else "quick"
        self.state = self.seconds = self.output = None

    def matches(self, glob):
        return any(fnmatch.fnmatchcase(name, glob) for name in (self.name, self.file, os.path.basename(self.file)))


def all_cases():
    found = []
    for group in GROUPS:
        for name in sorted(os.listdir(os.path.join(HERE, group))):
            if name.startswith(("fail-", "pass-", "exploit-")):
                file = f"{group}/{name}"
                found += [Case(file, arguments) for arguments in ARGUMENTS.get(file, [""])]
    return found


def known_failing(cases):
    known = {}
    with open(os.path.join(HERE, "known-failing.txt"), encoding="utf-8") as lines:
        for line in lines:
            if not line.strip() or line.startswith("#"):
                continue
            name, _, reason = line.partition(": ")
            if not reason.strip() or name not in {case.name for case in cases}:
                sys.exit(f"known-failing.txt: not 'CASE: REASON', or there is no such case: {line.strip()}")
            known[name] = reason.strip()
    return known


def run(case, runner, scratch):
    """In a mount namespace and a session of its own, so that neither a mount nor a process is left behind."""
    os.mkdir(scratch)
    os.chmod(scratch, 0o755)
    venv = os.path.join(TREE, ".tools", "venv", "bin")
    environment = dict(
        os.environ,
        RUNNER=runner,
        TREE=TREE,
        TMPDIR=scratch,
        CASES=os.path.join(scratch, "c"),
        PATH=f"{venv}:{os.environ['PATH']}:/usr/sbin:/sbin",
        PYTHONDONTWRITEBYTECODE="1",
    )
    path = os.path.join(HERE, case.file)
    program = [os.path.join(venv, "python3"), path] if path.endswith(".py") else ["bash", path]
    command = ["unshare", "--mount", "--propagation", "private", *program, *case.arguments.split()]
    began = time.monotonic()
    with open(os.path.join(scratch, "output"), "w+b") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=environment,
            cwd=scratch, start_new_session=True,
        )
        try:
            code = process.wait(LIMIT[case.speed])
        except subprocess.TimeoutExpired:
            code = None
        end_session(process.pid)
        process.wait()
        output.seek(0)
        case.output = output.read().decode("utf-8", "replace")
    case.seconds = time.monotonic() - began
    if code is None:
        case.output += f"\nit was ended after {LIMIT[case.speed]} s"
    case.state = code == 0


def end_session(session):
    """Daemons that the case left are in its session, whatever group they are in."""
    for _ in range(50):
        left = [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if session_of(pid) == session]
        if not left:
            return
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.1)


def session_of(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:
            after = stat.read().rpartition(")")[2].split()
    except OSError:
        return None
    return None if after[0] == "Z" else int(after[3])


def make_users():
    made = []
    for user in USERS:
        try:
            pwd.getpwnam(user)
        except KeyError:
            subprocess.run(["useradd", "--create-home", user], check=True, stdout=subprocess.DEVNULL)
            made.append(user)
    return made


def say(case, known, lock):
    with lock:
        verdict = {(True, False): "ok", (False, True): "known", (False, False): "FAILED", (True, True): "HOLDS"}
        print(f"{verdict[case.state, case.name in known]:6} {case.seconds:6.1f} s  {case.name}", flush=True)
        if case.name in known:
            print(f"                 {known[case.name]}", flush=True)
            if case.state:
                print("                 It holds now: remove it from known-failing.txt.", flush=True)
        elif not case.state:
            for line in case.output.strip().splitlines()[-12:]:
                print(f"    | {line[:400]}", flush=True)


def main():
    if len(sys.argv) not in (2, 3) or sys.argv[1] not in LIMIT:
        sys.exit(__doc__)
    if os.geteuid() != 0:
        if not shutil.which("sudo") or subprocess.run(["sudo", "-n", "true"], stderr=subprocess.DEVNULL, check=False).returncode:
            sys.exit("The cases mount file systems and act as other users: run them as root.")
        os.execvp("sudo", ["sudo", "-n", "--preserve-env=RUNNER,JOBS,KEEP,TMPDIR", sys.executable, *sys.argv])
    runner = os.path.abspath(os.environ.get("RUNNER") or os.path.join(TREE, "target/debug/runner"))
    if not os.access(runner, os.X_OK):
        sys.exit(f"{runner} is not there: build it first (cargo build --locked), or set RUNNER.")
    cases = all_cases()
    known = known_failing(cases)
    glob = sys.argv[2] if len(sys.argv) == 3 else None
    chosen = [case for case in cases if (case.matches(glob) if glob else case.speed == sys.argv[1])]
    if not chosen:
        sys.exit(f"no case is named like {glob}")
    jobs = int(os.environ.get("JOBS") or min(JOBS_MAX, 2 * (os.cpu_count() or 1)))
    root = tempfile.mkdtemp(prefix="rc.")
    os.chmod(root, 0o755)
    users = make_users()
    # From the end: what waits the longest begins first.
    order = ("core", "sec", "ha", "adv")
    waiting = sorted(enumerate(chosen), key=lambda numbered: order.index(numbered[1].file.split("/")[0]))
    lock = threading.Lock()

    def work():
        while True:
            with lock:
                if not waiting:
                    return
                number, case = waiting.pop()
            scratch = os.path.join(root, str(number))
            run(case, runner, scratch)
            say(case, known, lock)
            if not os.environ.get("KEEP"):
                # Cases leave files that nothing may change, for a moment.
                subprocess.run(["chattr", "-R", "-ia", scratch], stderr=subprocess.DEVNULL, check=False)
                shutil.rmtree(scratch, ignore_errors=True)

    workers = [threading.Thread(target=work) for _ in range(jobs)]
    try:
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    finally:
        for user in users:
            subprocess.run(["userdel", "--remove", user], stderr=subprocess.DEVNULL, check=False)
        if os.environ.get("KEEP"):
            print(f"what the cases wrote is in {root}")
        else:
            shutil.rmtree(root, ignore_errors=True)
    held = [case for case in chosen if case.state and case.name not in known]
    wrong = [case for case in chosen if case.state == (case.name in known)]
    short = len(chosen) - len(held) - len(wrong)
    if short:
        print(f"{short} are known to fall short (known-failing.txt)")
    print(f"{len(held)} passed, {len(wrong)} failed", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
