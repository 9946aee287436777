"""Starts `s3_server.py` and reads what it was asked."""

import subprocess
import sys
from collections import Counter
from pathlib import Path


class S3Process:
    """A running S3 server; its bucket is a directory."""

    KEY = "AKIABENCHMARK"
    SECRET = "benchmark-secret"
    REGION = "us-east-1"

    def __init__(self, place: Path) -> None:
        self.bucket = place / "objects" / "bench"
        self.bucket.mkdir(parents=True)
        self.log = place / "requests"
        command = [sys.executable, str(Path(__file__).with_name("s3_server.py")), str(self.bucket.parent), str(self.log)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout
        self.url = f"http://127.0.0.1:{int(self.process.stdout.readline())}"
        self.seen = 0

    def env(self) -> dict[str, str]:
        return {"AWS_ACCESS_KEY_ID": self.KEY, "AWS_SECRET_ACCESS_KEY": self.SECRET, "AWS_DEFAULT_REGION": self.REGION,
                "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null"}

    def requests(self) -> dict[str, float]:
        """How many of each kind since the last call."""
        with self.log.open() as log:
            log.seek(self.seen)
            kinds = Counter(line.split(" ", 1)[0] for line in log)
            self.seen = log.tell()
        return {"server_requests": sum(kinds.values()), **{f"server_{kind.lower()}": count for kind, count in kinds.items()}}

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()
