"""Rig: nodes, servers, proxies, mutator, independent checker. Nothing of the product's code is used."""
import asyncio, json, os, random, re, shutil, signal, socket, subprocess, sys, threading, time, hashlib
from datetime import datetime, timezone, timedelta
import blake3

BIN = os.environ.get("RUNNER", "runner"); RUN = os.environ.get("CASES", os.path.join(os.environ.get("TMPDIR", "/tmp"), "runner-cases-adv")); os.makedirs(RUN, exist_ok=True)
TREE = os.environ.get("TREE", os.path.abspath(os.path.join(os.path.dirname(__file__), "../../..")))  # the checkout, for what is in tests/support
AK, SK = "AKIAEXAMPLE", "SECRETEXAMPLE"
ENV = dict(os.environ, AWS_ACCESS_KEY_ID=AK, AWS_SECRET_ACCESS_KEY=SK, AWS_REGION="us-east-1", AWS_EC2_METADATA_DISABLED="true",
           NO_COLOR="1", RUNNER_LOG=os.environ.get("RUNNER_LOG", "info"))
PROCS = []

def port():
    s = socket.socket(); s.bind(("127.0.0.1", 0)); p = s.getsockname()[1]; s.close(); return p

def spawn(cmd, **kw):
    p = subprocess.Popen(cmd, stdout=kw.pop("stdout", subprocess.DEVNULL), stderr=kw.pop("stderr", subprocess.DEVNULL), **kw)
    PROCS.append(p); return p

def end_all():
    for p in PROCS:
        if p.poll() is None:
            try: p.send_signal(signal.SIGCONT); p.kill(); p.wait(5)
            except Exception: pass

def wait_port(p, t=40):
    end = time.time() + t
    while time.time() < end:
        try: socket.create_connection(("127.0.0.1", p), 0.3).close(); return
        except OSError: time.sleep(0.1)
    raise SystemExit(f"nothing listens on {p}")

def moto(p=None):
    p = p or port()
    spawn([sys.executable, TREE + "/tests/support/moto_careful.py", str(p)]); wait_port(p)
    import boto3
    boto3.client("s3", endpoint_url=f"http://127.0.0.1:{p}", aws_access_key_id=AK, aws_secret_access_key=SK, region_name="us-east-1").create_bucket(Bucket="bkt")
    return p

def rclone(root):
    os.makedirs(f"{root}/bkt", exist_ok=True); p = port()
    cmd = ["rclone", "serve", "s3", "--config", "/dev/null", "--addr", f"127.0.0.1:{p}", "--auth-key", f"{AK},{SK}", "--vfs-cache-mode", "writes", "--vfs-write-back", "0s", "--cache-dir", f"{root}.cache", root]
    proc = spawn(cmd); wait_port(p); return p, proc, cmd

ETCD = os.environ.get("ETCD") or shutil.which("etcd")
def etcd_bin():
    for b in (ETCD, "/usr/bin/etcd"):
        if os.path.exists(b): return b
    return shutil.which("etcd")

class Etcd:
    """A cluster of n members."""
    def __init__(self, root, n=3):
        self.root, self.n = root, n; self.c = [port() for _ in range(n)]; self.p = [port() for _ in range(n)]; self.procs = [None] * n
        self.initial = ",".join(f"m{i}=http://127.0.0.1:{self.p[i]}" for i in range(n)); self.token = f"t{random.randrange(1<<30)}"
        for i in range(n): self.start(i)
        for q in self.c: wait_port(q)
        time.sleep(1.5)
    def start(self, i):
        os.makedirs(self.root, exist_ok=True)
        self.procs[i] = spawn([etcd_bin(), "--name", f"m{i}", "--data-dir", f"{self.root}/m{i}", "--listen-client-urls", f"http://127.0.0.1:{self.c[i]}",
            "--advertise-client-urls", f"http://127.0.0.1:{self.c[i]}", "--listen-peer-urls", f"http://127.0.0.1:{self.p[i]}",
            "--initial-advertise-peer-urls", f"http://127.0.0.1:{self.p[i]}", "--initial-cluster", self.initial, "--initial-cluster-token", self.token,
            "--initial-cluster-state", "new", "--heartbeat-interval", "100", "--election-timeout", "1000"], stdout=open(f"{self.root}/m{i}.log", "ab"), stderr=subprocess.STDOUT)
    def kill(self, i):
        self.procs[i].send_signal(signal.SIGCONT); self.procs[i].kill(); self.procs[i].wait()

class Proxies:
    """TCP proxies in one thread. mode per proxy: ok | cut (refuse + drop) | blackhole (accept, carry nothing) | up (only client->server) |
    down (only server->client) | slow:<s>"""
    def __init__(self):
        self.loop = asyncio.new_event_loop(); self.mode = {}; self.conns = {}; self.counts = {}
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
    def add(self, name, target, count=False):
        p = port(); self.mode[name] = "ok"; self.conns[name] = set(); self.counts[name] = {}
        asyncio.run_coroutine_threadsafe(self._serve(name, p, target, count), self.loop).result(); return p
    async def _serve(self, name, p, target, count):
        async def handle(r, w):
            if self.mode[name] == "cut": w.transport.abort(); return
            try: r2, w2 = await asyncio.open_connection("127.0.0.1", target)
            except OSError: w.transport.abort(); return
            pair = (w, w2); self.conns[name].add(pair)
            async def pump(a, b, way):
                try:
                    while True:
                        d = await a.read(65536)
                        if not d: break
                        if count and way == "up":
                            for m in re.finditer(rb"(?:^|\r\n\r\n|\n|^)(GET|PUT|POST|HEAD|DELETE) (\S+) HTTP/1", d):
                                k = self.kind(m.group(1).decode(), m.group(2).decode()); self.counts[name][k] = self.counts[name].get(k, 0) + 1
                        while True:
                            m = self.mode[name]
                            if m == "ok" or m == way: break
                            if m.startswith("slow:"): await asyncio.sleep(float(m[5:])); break
                            await asyncio.sleep(0.02)
                        b.write(d); await b.drain()
                except Exception: pass
                finally:
                    try: b.close()
                    except Exception: pass
            await asyncio.gather(pump(r, w2, "up"), pump(r2, w, "down")); self.conns[name].discard(pair)
        self.server = await asyncio.start_server(handle, "127.0.0.1", p)
    def kind(self, m, path):
        if "list-type" in path: return "LIST " + ("journal" if "journal" in path else "other")
        for k in ("live/lease", "live/beat", "live/nodes", "live/probe", "journal", "index", "packs", "format", "keys"):
            if k in path: return f"{m} {k}"
        return f"{m} list" if "list-type" in path else f"{m} other"
    def set(self, name, mode):
        self.mode[name] = mode
        if mode == "cut":
            def cut():
                for a, b in list(self.conns[name]): a.transport.abort(); b.transport.abort()
            self.loop.call_soon_threadsafe(cut)

class Site:
    def __init__(self, w, nodes=("east", "west"), role="", etcd=None, endpoint=None, url=None, src=None, store_extra="", more="", top="", ttl=3):
        """etcd/endpoint: per node functions name->value"""
        self.w = w; shutil.rmtree(w, ignore_errors=True); os.makedirs(w); self.src = src or f"{w}/src"; os.makedirs(self.src, exist_ok=True)
        self.nodes = list(nodes); self.url = url or f"file://{w}/store"; self.store = f"{w}/store"; self.procs = {}; self.endpoint = endpoint; self.etcd = etcd
        self.role, self.store_extra, self.more, self.top, self.ttl = role, store_extra, more, top, ttl
        for n in self.nodes: self.write_config(n)
    def text(self, n):
        t = self.top + f'[store]\nurl = "{self.url}"\nencryption = "none"\n{self.store_extra}\n'
        if self.endpoint: t += f'endpoint = "{self.endpoint(n)}"\nregion = "us-east-1"\n'
        if self.etcd: t += f'[etcd]\nendpoints = {json.dumps(self.etcd(n))}\nlease_ttl = "{self.ttl}s"\n'
        t += f'[role.app]\nsources = ["{self.src}"]\n{self.role}\n{self.more}\n'
        return t
    def write_config(self, n):
        with open(f"{self.w}/{n}.toml.new", "w") as f: f.write(self.text(n))
        os.rename(f"{self.w}/{n}.toml.new", f"{self.w}/{n}.toml")
    def state(self, n): return f"{self.w}/state-{n}"
    def cmd(self, n, *a): return [BIN, "--config", f"{self.w}/{n}.toml", "--node", n, "--state-dir", self.state(n), *a]
    def run(self, n, *a, timeout=120, env=None):
        p = subprocess.run(self.cmd(n, *a), capture_output=True, text=True, timeout=timeout, env=env or ENV); return p
    def json(self, n, *a, **k):
        p = self.run(n, "--json", *a, **k)
        try: return p.returncode, json.loads(p.stdout)
        except Exception: return p.returncode, {"error": p.stdout[:300] + p.stderr[-600:]}
    def daemon(self, n, env=None):
        p = spawn(self.cmd(n, "daemon"), env=env or ENV, stdout=open(f"{self.w}/{n}.log", "ab"), stderr=subprocess.STDOUT); self.procs[n] = p; return p
    def stop(self, n, sig=signal.SIGTERM, t=30):
        p = self.procs.get(n)
        if p and p.poll() is None:
            p.send_signal(signal.SIGCONT); p.send_signal(sig)
            try: p.wait(t)
            except subprocess.TimeoutExpired: print("!! does not stop:", n); p.kill(); p.wait()

# ------------------------------------------------------------------ content
def content(name, version, size):
    head = f"{name}|{version}|{size}|".encode()
    seed = hashlib.blake2b(head, digest_size=8).digest(); r = random.Random(seed)
    body = r.randbytes(max(0, size - len(head)))
    return (head + body)[:max(size, len(head))]

class Mutator(threading.Thread):
    def __init__(self, src, files=30, big=2, pause=(0.05, 0.3), seed=1, slow=False):
        super().__init__(daemon=True); self.src = src; self.log = {}; self.on = True; self.pause = pause; self.r = random.Random(seed); self.version = {}
        self.names = [f"d{i%5}/f{i}" for i in range(files)] + [f"big{i}" for i in range(big)]; self.lock = threading.Lock(); self.slow = slow
        for i in range(5): os.makedirs(f"{src}/d{i}", exist_ok=True)
        for n in self.names: self.write(n, "rename")
    def size(self, n): return self.r.choice([2_500_000, 1_300_000]) if n.startswith("big") else self.r.choice([60, 700, 3000, 90_000])
    def write(self, n, how):
        v = self.version.get(n, 0) + 1; p = f"{self.src}/{n}"; size = self.size(n)
        if how == "inplace": size = 3000
        c = content(n, v, size); t0 = time.time()
        if how == "inplace" and os.path.exists(p) and os.path.getsize(p) == 3000:
            fd = os.open(p, os.O_WRONLY); os.pwrite(fd, c, 0); os.close(fd)
        else:
            q = f"{self.src}/.tmp-w"; open(q, "wb").write(c); os.rename(q, p)
        with self.lock: self.version[n] = v; self.log.setdefault(n, []).append((t0, time.time(), v, len(c)))
    def remove(self, n):
        t0 = time.time()
        try: os.remove(f"{self.src}/{n}")
        except FileNotFoundError: return
        with self.lock: self.log[n].append((t0, time.time(), None, 0))
    def run(self):
        while self.on:
            n = self.r.choice(self.names); x = self.r.random()
            if x < 0.08 and not n.startswith("big"): self.remove(n)
            elif x < 0.35 and not n.startswith("big"): self.write(n, "inplace")
            elif n.startswith("big") and self.r.random() < 0.7: pass
            else: self.write(n, "rename")
            time.sleep(self.r.uniform(*self.pause))
    def check(self, root, lo, hi, slack=0.1):
        """Every file below root is a version that stood at some moment of [lo, hi]."""
        bad = []; seen = set()
        for d, _, fs in os.walk(root):
            for f in fs:
                n = os.path.relpath(f"{d}/{f}", root)
                if f == ".tmp-w": continue
                seen.add(n); c = open(f"{d}/{f}", "rb").read(); parts = c[:80].split(b"|")
                if n not in self.log or len(parts) < 3: bad.append(f"{n}: stranger {c[:40]!r}"); continue
                try: v, size = int(parts[1]), int(parts[2])
                except ValueError: bad.append(f"{n}: torn head {c[:40]!r}"); continue
                if parts[0].decode() != n or content(n, v, size) != c: bad.append(f"{n}: content is no version (v{v})"); continue
                bad += self.window(n, v, lo, hi, slack)
        for n in self.names:
            if n not in seen: bad += self.window(n, None, lo, hi, slack)
        return bad
    def window(self, n, v, lo, hi, slack):
        log = self.log.get(n, []); ok = False; iv = []
        for i, (t0, t1, w, _) in enumerate(log):
            if w == v:
                end = log[i + 1][1] if i + 1 < len(log) else float("inf"); iv.append((t0, end))
                if t0 - slack <= hi and end + slack >= lo: ok = True
        if v is None and (not log or log[0][0] + slack >= lo): ok = True
        return [] if ok else [f"{n}: version {v} stood {[(round(a-lo,2), round(b-lo,2)) for a,b in iv]} (s after slot), run window 0..{hi-lo:.2f}"]

# ------------------------------------------------------------------ journal, independent
def mac_key(store_key): return blake3.blake3(store_key, derive_key_context="runner 2026-11-21 v1 journal mac").digest()
def ts(t):
    m = re.match(r"(.*?)(\.\d+)?Z$", t); base = datetime.strptime(m.group(1), "%Y-%m-%dT%H:%M:%S").replace(tzinfo=timezone.utc).timestamp()
    return base + float(m.group(2) or 0)

class DirReader:
    def __init__(self, root, role="app"): self.root, self.role = root, role
    def names(self): 
        try: return sorted(f for f in os.listdir(f"{self.root}/{self.role}/journal") if re.fullmatch(r"\d{16}", f))
        except FileNotFoundError: return []
    def get(self, key): return open(f"{self.root}/{self.role}/{key}", "rb").read()
    def list(self, kind): 
        out = []
        for d, _, fs in os.walk(f"{self.root}/{self.role}/{kind}"): out += [f for f in fs if not f.startswith(".tmp-")]
        return out
class S3Reader:
    def __init__(self, p, bucket="bkt", prefix="prod", role="app"):
        import boto3
        from botocore.config import Config
        self.c = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{p}", aws_access_key_id=AK, aws_secret_access_key=SK, region_name="us-east-1", config=Config(retries={"max_attempts": 8}, s3={"addressing_style": "path"})); self.b = bucket; self.pre = f"{prefix}/{role}/"
    def _keys(self, kind):
        out = []
        for page in self.c.get_paginator("list_objects_v2").paginate(Bucket=self.b, Prefix=self.pre + kind + "/"): out += [o["Key"] for o in page.get("Contents", [])]
        return out
    def names(self): return sorted(k.rsplit("/", 1)[1] for k in self._keys("journal") if re.fullmatch(r"\d{16}", k.rsplit("/", 1)[1]))
    def get(self, key): return self.c.get_object(Bucket=self.b, Key=self.pre + key)["Body"].read()
    def list(self, kind): return [k.rsplit("/", 1)[1] for k in self._keys(kind)]

class Poller(threading.Thread):
    """Sees records as they come; any that changes or goes is a violation."""
    def __init__(self, reader, every=0.25):
        super().__init__(daemon=True); self.r, self.every, self.on, self.seen, self.bad, self.at = reader, every, True, {}, [], {}
    def run(self):
        n = 0
        while self.on:
            try: self.look(full=n % 40 == 39)
            except Exception as e: self.err = e
            n += 1; time.sleep(self.every)
    def look(self, full=False):
        names = self.r.names()
        for f in names:
            if f in self.seen and not full: continue
            b = self.r.get(f"journal/{f}"); 
            if f in self.seen and self.seen[f] != b: self.bad.append(f"record {f} changed")
            if f not in self.seen: self.seen[f] = b; self.at[int(f)] = time.time()
        for f in self.seen:
            if f not in names and full: self.bad.append(f"record {f} is gone")

def fold(reader):
    """Reads and checks the journal by docs/FORMAT.md. -> (records, violations, state)"""
    bad = []; fmt = reader.get("format").split(b"\n"); f = json.loads(fmt[0]); mk = mac_key(bytes.fromhex(f["clear_key"])) if f.get("clear_key") else None
    names = reader.names(); recs = []; prev = None; term = 0; take = None; last_slot = None; snaps = {}; indexes = []; condemned = []; slots = {}
    if [int(n) for n in names] != list(range(1, len(names) + 1)): bad.append(f"gap: {[int(n) for n in names][:5]}..{len(names)}")
    for n in names:
        o = reader.get(f"journal/{n}"); lines = o.split(b"\n"); d = blake3.blake3(o).hexdigest()
        if len(lines) != 3 or lines[2] != b"": bad.append(f"{n}: not two lines"); continue
        if mk and json.loads(lines[1])["mac"] != blake3.blake3(lines[0], key=mk).hexdigest(): bad.append(f"{n}: MAC")
        r = json.loads(lines[0]); r["digest"] = d; r["raw_len"] = len(o)
        if r["seq"] != int(n): bad.append(f"{n}: seq {r['seq']}")
        if r.get("prev") != prev: bad.append(f"{n}: prev")
        if r.get("last_slot") != (last_slot if last_slot else None): bad.append(f"{n}: last_slot {r.get('last_slot')} is not {last_slot}")
        if "state" in r:
            s = r["state"]
            if [x["id"] for x in s["snapshots"]] != list(snaps): bad.append(f"{n}: checkpoint's snapshots differ")
            if s["indexes"] != indexes: bad.append(f"{n}: checkpoint's indexes differ")
            if [c["seq"] for c in s.get("condemned", [])] != [c["seq"] for c in condemned]: bad.append(f"{n}: checkpoint's condemned differ")
            if s.get("last_slot") != last_slot: bad.append(f"{n}: checkpoint's last_slot")
        k, b = r["kind"], r["body"]
        if k == "takeover":
            if r["term"] != term + 1: bad.append(f"{n}: takeover's term {r['term']} after {term}")
            if "takeover" in r: bad.append(f"{n}: takeover with takeover")
            term, take = r["term"], d
        elif k in ("pause", "resume", "clone"):
            if r["term"] != term: bad.append(f"{n}: {k}'s term")
        else:
            if r["term"] != term or r.get("takeover") != take: bad.append(f"{n}: {k} under term {r['term']} by {r['node']['name']}, the newest is {term}: NOT FENCED")
        if k == "snapshot" or (k == "end" and b["exit"] == 0 and not b["stopped"]):
            if r.get("slot"):
                if r["slot"] in slots: bad.append(f"{n}: slot {r['slot']} committed twice ({slots[r['slot']]})")
                if last_slot and r["slot"] <= last_slot: bad.append(f"{n}: slot {r['slot']} after {last_slot}")
                slots[r["slot"]] = int(n); last_slot = r["slot"]
        if k == "snapshot": snaps[d] = r; indexes = indexes + b["indexes"]
        if k == "prune":
            for x in b["forgotten"]:
                if x not in snaps: bad.append(f"{n}: forgets an unknown snapshot")
                snaps.pop(x, None)
            gone = [i for i in indexes if i not in b["indexes"]] + b.get("strays", [])
            if b["packs"] or gone: condemned = condemned + [{"seq": int(n), "packs": b["packs"], "indexes": gone}]
            indexes = b["indexes"]
        if k == "swept": condemned = [c for c in condemned if c["seq"] not in b["prunes"]]
        prev = d; recs.append(r)
    return recs, bad, {"snaps": snaps, "indexes": indexes, "condemned": condemned, "slots": slots, "term": term, "last_slot": last_slot}

def restore_all(site, node, mut, state, out, every=1, check_window=True, src=None):
    bad = []; n = 0; src = src or site.src; snaps = list(state["snaps"].items())
    for i, (d, r) in enumerate(snaps):
        if every > 1 and i % every and i != len(snaps) - 1: continue
        shutil.rmtree(out, ignore_errors=True); p = site.run(node, "restore", "app", "--snapshot", d, "--target", out); n += 1
        if p.returncode: bad.append(f"snapshot {r['seq']} {d[:12]} does not restore: {p.returncode} {p.stderr[-400:]}"); continue
        hi = ts(r["time"]); lo = ts(r["slot"]) if r.get("slot") else hi - r["body"]["cost"]["duration_ms"] / 1000 - 1
        if not check_window: lo, hi = 0, 1e12
        b = mut.check(out + src, lo, hi)
        # unreadable/changed while read are counted by the program
        if b: bad.append(f"snapshot {r['seq']} of {r['node']['name']} slot {r.get('slot')} time {r['time']}: {b[:4]} ({len(b)})")
    shutil.rmtree(out, ignore_errors=True)
    return n, bad
def iso(t): return datetime.fromtimestamp(t, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")

def verdict(ok, why):
    """The last line, and the exit code: 0 where the program behaves right."""
    end_all(); print("ok" if ok else f"FAULT: {why}", flush=True); sys.exit(0 if ok else 1)
