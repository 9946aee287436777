"""The programs that are compared: how each is called, and what each says of its own run."""

import json
import shlex
from pathlib import Path
from typing import Any

from measure import CommandFailed, execute, stored
from s3_process import S3Process

PASSWORD = "benchmark"


class Program:
    """One program in one round: its repository and its caches are its own. With a server the repository is in its bucket."""

    name = ""
    s3 = True

    def __init__(self, binary: str, place: Path, source: Path, server: S3Process | None = None, extra: str = "") -> None:
        self.binary, self.place, self.source, self.server, self.extra = binary, place, source, server, extra
        self.repo = server.bucket / place.name if server else place / "repo"
        self.node = 1
        self.round = 0
        # How many it has made.
        self.backups = 0
        # Why it does not go on.
        self.failed = ""
        place.mkdir(parents=True, exist_ok=True)

    def env(self) -> dict[str, str]:
        return self.server.env() if self.server else {}

    def configure(self) -> None:
        """Writes the config; once more where a repository was copied."""

    def setup(self) -> None:
        """Whatever happens once and is not timed."""

    def backup(self, trust: str = "") -> list[str]:
        raise NotImplementedError

    def restore(self, target: Path) -> list[str]:
        raise NotImplementedError

    def forget(self, keep: int) -> list[str]:
        """Keeps the newest, and frees the space."""
        raise CommandFailed("has no such command here")

    def move(self) -> None:
        """Another node goes on, which has nothing but the repository."""
        self.node += 1

    def facts(self, said: str) -> dict[str, float]:
        """What its own report says."""
        return {}

    def restored(self, target: Path) -> Path:
        """Where the source is after a restore into `target`."""
        return target / str(self.source).lstrip("/")

    def stored(self) -> int:
        return stored(self.repo)

    def sizes(self) -> dict[str, float]:
        return {"stored": self.stored()}


class Restic(Program):
    name = "restic"

    def env(self) -> dict[str, str]:
        at = f"s3:{self.server.url}/{self.server.bucket.name}/{self.place.name}" if self.server else str(self.repo)
        return {**super().env(), "RESTIC_REPOSITORY": at, "RESTIC_PASSWORD": PASSWORD, "RESTIC_CACHE_DIR": str(self.place / f"cache-{self.node}")}

    def setup(self) -> None:
        execute([self.binary, "init"], self.env())

    def backup(self, trust: str = "") -> list[str]:
        # One host name for all nodes: restic finds the snapshot to compare with by it.
        return [self.binary, "backup", "--quiet", "--host", "app", str(self.source)]

    def restore(self, target: Path) -> list[str]:
        return [self.binary, "restore", "--quiet", "latest", "--overwrite", "if-changed", "--target", str(target)]

    def forget(self, keep: int) -> list[str]:
        return [self.binary, "forget", "--quiet", "--keep-last", str(keep), "--prune"]


class Rustic(Program):
    name = "rustic"

    def call(self, *args: str) -> list[str]:
        return [self.binary, "--use-profile", str(self.place / "rustic"), "--cache-dir", str(self.place / f"cache-{self.node}"),
                "--no-progress", "--log-level", "warn", *args]

    def configure(self) -> None:
        at = "opendal:s3" if self.server else str(self.repo)
        text = f'[repository]\nrepository = "{at}"\npassword = "{PASSWORD}"\n'
        if self.server:
            options = {"bucket": self.server.bucket.name, "root": f"/{self.place.name}", "endpoint": self.server.url, "region": self.server.REGION,
                       "access_key_id": self.server.KEY, "secret_access_key": self.server.SECRET}
            text += "[repository.options]\n" + "".join(f'{k} = "{v}"\n' for k, v in options.items())
        (self.place / "rustic.toml").write_text(text)

    def setup(self) -> None:
        self.configure()
        execute(self.call("init"))

    def backup(self, trust: str = "") -> list[str]:
        return self.call("backup", "--host", "app", str(self.source))

    def restore(self, target: Path) -> list[str]:
        return self.call("restore", f"latest:{self.source}", str(self.restored(target)))

    def forget(self, keep: int) -> list[str]:
        # Without these two it only marks, and repacks little: restic does all of it at once.
        return self.call("forget", "--keep-last", str(keep), "--prune", "--instant-delete", "--keep-delete", "0s")


class Borg(Program):
    name = "borg"
    s3 = False

    def env(self) -> dict[str, str]:
        return {"BORG_REPO": str(self.repo), "BORG_PASSPHRASE": PASSWORD, "BORG_BASE_DIR": str(self.place / f"base-{self.node}"),
                "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes", "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes"}

    def setup(self) -> None:
        execute([self.binary, "init", "--encryption", "repokey-blake2"], self.env())

    def backup(self, trust: str = "") -> list[str]:
        self.backups += 1
        return [self.binary, "create", f"::n{self.backups}", str(self.source)]

    def restore(self, target: Path) -> list[str]:
        # borg writes to where it is called.
        return ["sh", "-c", 'cd "$1" && exec "$2" extract "::$3"', "sh", str(target), self.binary, f"n{self.backups}"]

    def forget(self, keep: int) -> list[str]:
        return ["sh", "-c", '"$1" prune --keep-last "$2" && exec "$1" compact', "sh", self.binary, str(keep)]


class Runner(Program):
    name = "runner"

    def call(self, *args: str, node: str = "", trust: str = "") -> list[str]:
        node = node or f"node{self.node}"
        config = self.place / (f"{trust}.toml" if trust else "rehash.toml")
        return [self.binary, "--config", str(config), "--node", node, "--state-dir", str(self.place / f"state-{node}"), "--quiet", "--json", *args]

    def configure(self) -> None:
        self.activate()
        probe = f"test \\\"$(cat {shlex.quote(str(self.place / 'active'))})\\\" = \\\"$RUNNER_NODE\\\""
        url = f"s3://{self.server.bucket.name}/{self.place.name}" if self.server else f"file://{self.repo}"
        more = f'endpoint = "{self.server.url}"\nregion = "{self.server.REGION}"\n' if self.server else ""
        for trust in ("rehash", "mtime"):
            (self.place / f"{trust}.toml").write_text(
                f'[store]\nurl = "{url}"\n{more}key_file = "{self.place}/key"\n\n[role.app]\nsources = ["{self.source}"]\n'
                f'lease = "none"\ntakeover_trust = "{trust}"\neligible = {{ command = ["sh", "-c", "{probe}"] }}\n{self.extra}')

    def setup(self) -> None:
        self.configure()
        execute(self.call("init", "app"), self.env())

    def activate(self) -> None:
        (self.place / "active").write_text(f"node{self.node}\n")

    def move(self) -> None:
        super().move()
        self.activate()

    def backup(self, trust: str = "") -> list[str]:
        return self.call("backup", "app", trust=trust)

    def restore(self, target: Path) -> list[str]:
        return self.call("restore", "app", "--target", str(target))

    def forget(self, keep: int) -> list[str]:
        return self.call("prune", "app")

    def facts(self, said: str) -> dict[str, float]:
        document: dict[str, Any] = json.loads(said)
        role = document.get("roles", [{}])[0]
        if "outcome" in role:
            if role["outcome"] not in ("committed", "unchanged"):
                raise CommandFailed(f"{role['outcome']}: {role['reason']}")
            return {"uploaded": role["bytes"]["uploaded"], "read": role["bytes"]["read"], "requests": role["requests"]}
        if "entries" in document:
            return {"fetched": document["bytes"]["fetched"]}
        if document.get("outcome", "pruned") != "pruned":
            raise CommandFailed(f"{document['outcome']}: {document['reason']}")
        return {"freed": document["bytes"]["freed"], "deleted": document["packs"]["deleted"]} if "packs" in document else {}

    def packs(self) -> int:
        return sum(1 for f in self.repo.glob("app/packs/**/*") if f.is_file())


class Limit(Program):
    """What plain tools need for about the same: how far anybody could come."""

    name = "limit"
    s3 = False

    def archive(self) -> Path:
        return self.place / "tree.tar.zst"

    def backup(self, trust: str = "") -> list[str]:
        return ["sh", "-c", 'tar -C / -cf - "${1#/}" | zstd -3 -T2 -q -o "$2"', "sh", str(self.source), str(self.archive())]

    def restore(self, target: Path) -> list[str]:
        return ["sh", "-c", 'zstd -dcq "$1" | tar -C "$2" -xf -', "sh", str(self.archive()), str(target)]

    def walk(self) -> list[str]:
        return ["sh", "-c", 'find "$1" -printf "%s %T@\\n" >/dev/null', "sh", str(self.source)]

    def read(self) -> list[str]:
        return ["sh", "-c", 'find "$1" -type f -print0 | xargs -0 -r cat >/dev/null', "sh", str(self.source)]

    def stored(self) -> int:
        return self.archive().stat().st_size


PROGRAMS: dict[str, type[Program]] = {kind.name: kind for kind in (Runner, Restic, Rustic, Borg)}
