"""A small S3 server on loopback: what the S3 rows of the benchmark talk to. Run as `s3_server.py ROOT LOG`, it prints its port.

Objects are files below ROOT/BUCKET. A conditional put is decided and made visible under one lock, which a repository's journal
needs and other small servers do not do. Bodies go from the socket into the file inside the kernel. Signatures and checksums
are taken off and not checked, and nothing is synced, so that the two cores are the clients'. Every request becomes one line of
LOG: method, path and query, status, bytes of the body.
"""

import os
import re
import shutil
import socket
import sys
import threading
import time
import uuid
from email.utils import formatdate
from pathlib import Path
from typing import BinaryIO
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

PAGE = 1000
BLOCK = 1 << 20
NS = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'


class S3Response(Exception):
    def __init__(self, status: int, body: bytes | str = b"", headers: dict[str, str] | None = None) -> None:
        self.status, self.headers = status, headers or {}
        self.body = body.encode() if isinstance(body, str) else body
        # Instead of the body: this part of a file.
        self.file: BinaryIO | None = None
        self.start = self.length = 0


def error(status: int, code: str) -> S3Response:
    return S3Response(status, f"<Error><Code>{code}</Code><Message>{code}</Message></Error>", {"Content-Type": "application/xml"})


def xml(name: str, body: str) -> S3Response:
    text = f'<?xml version="1.0" encoding="UTF-8"?><{name} {NS}>{body}</{name}>'
    return S3Response(200, text, {"Content-Type": "application/xml"})


class HttpConnection:
    """One connection: lines and bodies, read from one buffer."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock, self.buffer = sock, b""
        self.pipe = os.pipe()

    def close(self) -> None:
        for end in self.pipe:
            os.close(end)
        self.sock.close()

    def until(self, mark: bytes) -> bytes:
        while mark not in self.buffer:
            more = self.sock.recv(1 << 16)
            if not more:
                raise ConnectionError
            self.buffer += more
        found, self.buffer = self.buffer.split(mark, 1)
        return found

    def copy(self, length: int, out: int) -> None:
        """Moves that many bytes of the body into the file."""
        have, self.buffer = self.buffer[:length], self.buffer[length:]
        if have:
            os.write(out, have)
        left = length - len(have)
        while left:
            moved = os.splice(self.sock.fileno(), self.pipe[1], min(left, BLOCK))
            if not moved:
                raise ConnectionError
            left -= moved
            while moved:
                moved -= os.splice(self.pipe[0], out, moved)

    def body(self, headers: dict[str, str], out: int) -> int:
        """The whole body, without the frames of `aws-chunked` and of HTTP."""
        if "chunked" in headers.get("transfer-encoding", ""):
            raise error(501, "NotImplemented")
        length = int(headers.get("content-length", "0"))
        if not headers.get("x-amz-content-sha256", "").startswith("STREAMING-"):
            self.copy(length, out)
            return length
        total = 0
        while size := int(self.until(b"\r\n").split(b";")[0], 16):
            self.copy(size, out)
            self.until(b"\r\n")
            total += size
        while self.until(b"\r\n"):  # Trailers, up to an empty line.
            pass
        return total


class S3Bucket:
    def __init__(self, root: Path, log: int) -> None:
        self.root, self.log, self.lock = root, log, threading.Lock()
        self.etags: dict[str, str] = {}
        self.parts: dict[str, dict[int, Path]] = {}
        self.scratch = root / ".scratch"
        self.scratch.mkdir(parents=True, exist_ok=True)

    def serve(self, sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        wire = HttpConnection(sock)
        try:
            while True:
                lines = wire.until(b"\r\n\r\n").decode("latin-1").split("\r\n")
                method, target, _ = lines[0].split(" ")
                headers = {k.lower(): v.strip() for k, v in (line.split(":", 1) for line in lines[1:])}
                if headers.get("expect", "").lower() == "100-continue":
                    sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
                body, size = self.scratch / uuid.uuid4().hex, 0
                try:
                    if method in ("PUT", "POST"):
                        with open(body, "wb") as out:
                            size = wire.body(headers, out.fileno())
                    answer = self.answer(method, target, headers, body)
                except S3Response as raised:
                    answer = raised
                except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                    answer = error(404, "NoSuchKey")
                finally:
                    body.unlink(missing_ok=True)
                os.write(self.log, f"{method} {target} {answer.status} {size}\n".encode())
                self.reply(sock, method, answer)
        except (ConnectionError, ValueError, OSError):
            pass
        finally:
            wire.close()

    def reply(self, sock: socket.socket, method: str, answer: S3Response) -> None:
        length = answer.length if answer.file else len(answer.body)
        head = [f"HTTP/1.1 {answer.status} X", f"Content-Length: {length}", f"x-amz-request-id: {uuid.uuid4().hex}", f"Date: {formatdate(usegmt=True)}"]
        head += [f"{k}: {v}" for k, v in answer.headers.items()]
        sock.sendall("\r\n".join([*head, "", ""]).encode() + (answer.body if method != "HEAD" else b""))
        if answer.file:
            with answer.file as file:
                if method == "GET" and length:
                    sock.sendfile(file, answer.start, length)

    def answer(self, method: str, target: str, headers: dict[str, str], body: Path) -> S3Response:
        parts = urlsplit(target)
        query = {k: v[0] for k, v in parse_qs(parts.query, keep_blank_values=True).items()}
        bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
        if not key:
            return self.on_bucket(method, bucket, query, body)
        path = self.root / bucket / key
        if "uploadId" in query or "uploads" in query:
            return self.multipart(method, bucket, key, query, body)
        if method == "PUT" and key.endswith("/"):  # A marker of a folder, which OpenDAL makes.
            path.mkdir(parents=True, exist_ok=True)
            return S3Response(200)
        if method == "PUT":
            return self.put(path, headers, body)
        if method in ("GET", "HEAD"):
            return self.get(path, headers)
        if method == "DELETE":
            path.unlink(missing_ok=True)
            return S3Response(204)
        raise error(501, "NotImplemented")

    def put(self, path: Path, headers: dict[str, str], body: Path) -> S3Response:
        path.parent.mkdir(parents=True, exist_ok=True)
        etag = f'"{uuid.uuid4().hex}"'
        with self.lock:
            there = path.exists()
            if there and headers.get("if-none-match") == "*":
                raise error(412, "PreconditionFailed")
            if "if-match" in headers and (not there or self.etag(path) != headers["if-match"]):
                raise error(412 if there else 404, "PreconditionFailed" if there else "NoSuchKey")
            os.rename(body, path)
            self.etags[str(path)] = etag
        return S3Response(200, b"", {"ETag": etag})

    def etag(self, path: Path) -> str:
        return self.etags.setdefault(str(path), f'"{uuid.uuid4().hex}"')

    def get(self, path: Path, headers: dict[str, str]) -> S3Response:
        with self.lock:
            file, etag = path.open("rb"), self.etag(path)
        stat = os.fstat(file.fileno())
        start, end, status = 0, stat.st_size, 200
        found = {"ETag": etag, "Last-Modified": formatdate(stat.st_mtime, usegmt=True), "Content-Type": "application/octet-stream"}
        if given := re.fullmatch(r"bytes=(\d*)-(\d*)", headers.get("range", "")):
            first, last = given.groups()
            start = int(first) if first else max(0, end - int(last))
            end = min(end, int(last) + 1) if first and last else end
            if start >= stat.st_size:
                file.close()
                raise error(416, "InvalidRange")
            status, found["Content-Range"] = 206, f"bytes {start}-{end - 1}/{stat.st_size}"
        answer = S3Response(status, b"", {**found, "Accept-Ranges": "bytes"})
        answer.file, answer.start, answer.length = file, start, end - start
        return answer

    def on_bucket(self, method: str, bucket: str, query: dict[str, str], body: Path) -> S3Response:
        if method == "PUT":
            (self.root / bucket).mkdir(exist_ok=True)
            return S3Response(200)
        if method == "POST" and "delete" in query:
            keys = re.findall(r"<Key>(.*?)</Key>", body.read_text())
            for key in keys:
                (self.root / bucket / key).unlink(missing_ok=True)
            return xml("DeleteResult", "".join(f"<Deleted><Key>{key}</Key></Deleted>" for key in keys))
        if not (self.root / bucket).is_dir():
            raise error(404, "NoSuchBucket")
        if method == "HEAD":
            return S3Response(200)
        if "location" in query:
            return xml("LocationConstraint", "")
        return self.listing(bucket, query)

    def listing(self, bucket: str, query: dict[str, str]) -> S3Response:
        top, prefix = self.root / bucket, query.get("prefix", "")
        at = top / prefix.rpartition("/")[0]
        after = query.get("continuation-token") or query.get("start-after") or query.get("marker") or ""
        skip = len(str(top)) + 1
        found = (os.path.join(d, n)[skip:] for d, _, names in os.walk(at) for n in names)
        # Filtered first: a journal has thousands of keys, of which a reader asks for the last ones.
        keys = sorted(key for key in found if key > after and key.startswith(prefix))
        limit, delimiter = int(query.get("max-keys", PAGE)), query.get("delimiter", "")
        items: list[str] = []
        shown: set[str] = set()
        last, more = "", False
        for key in keys:
            cut = key.find(delimiter, len(prefix)) if delimiter else -1
            name = key[: cut + len(delimiter)] if cut >= 0 else key
            if name <= after or name in shown:
                continue
            if len(items) == limit:
                more = True
                break
            shown.add(name)
            last = name
            if cut >= 0:
                items.append(f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>")
                continue
            stat = (top / key).stat()
            when = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(stat.st_mtime))
            items.append(f"<Contents><Key>{escape(key)}</Key><LastModified>{when}</LastModified><ETag>{self.etag(top / key)}</ETag>"
                         f"<Size>{stat.st_size}</Size><StorageClass>STANDARD</StorageClass></Contents>")
        token = f"<NextContinuationToken>{escape(last)}</NextContinuationToken><NextMarker>{escape(last)}</NextMarker>" if more else ""
        return xml("ListBucketResult", f"<Name>{bucket}</Name><Prefix>{escape(prefix)}</Prefix><KeyCount>{len(items)}</KeyCount>"
                   f"<MaxKeys>{limit}</MaxKeys><IsTruncated>{str(more).lower()}</IsTruncated>{token}{''.join(items)}")

    def multipart(self, method: str, bucket: str, key: str, query: dict[str, str], body: Path) -> S3Response:
        if method == "POST" and "uploads" in query:
            upload = uuid.uuid4().hex
            self.parts[upload] = {}
            return xml("InitiateMultipartUploadResult", f"<Bucket>{bucket}</Bucket><Key>{escape(key)}</Key><UploadId>{upload}</UploadId>")
        parts = self.parts[query["uploadId"]]
        if method == "PUT":
            number = int(query["partNumber"])
            parts[number] = body.with_suffix(".part")
            os.rename(body, parts[number])
            return S3Response(200, b"", {"ETag": f'"{number}"'})
        for number in sorted(parts) if method == "POST" else []:
            with open(parts[number], "rb") as part, open(body.with_suffix(".whole"), "ab") as whole:
                shutil.copyfileobj(part, whole, BLOCK)
        for part_path in parts.values():
            part_path.unlink(missing_ok=True)
        if method == "DELETE":
            return S3Response(204)
        done = self.put(self.root / bucket / key, {}, body.with_suffix(".whole"))
        return xml("CompleteMultipartUploadResult", f"<Key>{escape(key)}</Key><ETag>{done.headers['ETag']}</ETag>")


def leave_with_parent() -> None:
    sys.stdin.read()
    os._exit(0)


def main() -> None:
    threading.Thread(target=leave_with_parent, daemon=True).start()
    root, log = Path(sys.argv[1]), os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    bucket = S3Bucket(root, log)
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    print(listener.getsockname()[1], flush=True)
    while True:
        sock, _ = listener.accept()
        threading.Thread(target=bucket.serve, args=(sock,), daemon=True).start()


if __name__ == "__main__":
    main()
