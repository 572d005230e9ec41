#!/usr/bin/env python3
"""peerbench: compare reverse proxies on one small machine. Standard library only; see README.md.

The machine is too small for honest throughput races, so the main number is the proxy's own CPU time
(user + system, whole process tree) per request or per GiB; requests/s is shown with the share of its core used.
"""
import os
HERE = os.path.dirname(os.path.abspath(__file__))
os.environ["OPENSSL_CONF"] = f"{HERE}/conf/openssl-client.cnf"  # before ssl is imported; not passed on to proxies

import argparse
import json
import multiprocessing
import re
import resource
import shlex
import shutil
import signal
import socket
import ssl
import statistics
import string
import subprocess
import sys
import tempfile
import time

TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
MIB = 1 << 20


class Tmpl(string.Template):
    delimiter = "@"  # nginx and haproxy own "$" and "%"


# name -> (binaries needed, template, output file, command, variables of the template)
PEERS = {
    "nginx": (["nginx"], "nginx.conf", "nginx.conf", "nginx -c {config_dir}/nginx.conf -p {config_dir}",
              {"access_log": "off"}),
    "nginx-log": (["nginx"], "nginx.conf", "nginx.conf", "nginx -c {config_dir}/nginx.conf -p {config_dir}",
                  {"access_log": "{config_dir}/access.log combined"}),
    "haproxy": (["haproxy"], "haproxy.cfg", "haproxy.cfg", "haproxy -db -f {config_dir}/haproxy.cfg",
                {"log_global": "", "log_proxy": "no log"}),
    "haproxy-log": (["haproxy"], "haproxy.cfg", "haproxy.cfg", "haproxy -db -f {config_dir}/haproxy.cfg",
                    {"log_global": "log stdout format raw local0", "log_proxy": "log global\n    option httplog"}),
    "caddy": (["caddy"], "Caddyfile", "Caddyfile", "caddy run --adapter caddyfile --config {config_dir}/Caddyfile", {}),
}
SCENARIOS = {
    "S1": "TLS 1.3, HTTP/1.1 keep-alive, 64 connections, 1 KiB body",
    "S2": "TLS 1.3, HTTP/2, 16 connections x 16 streams, 1 KiB body",
    "S3": "full TLS 1.3 handshake + 1 request + close (no resumption)",
    "S4": "1 MiB download over TLS HTTP/1.1, 4 connections",
    "S4L": "100 MiB download over TLS HTTP/1.1, 2 connections",
    "S5": "memory per idle TLS keep-alive connection",
    "S6": "plain HTTP/1.1 keep-alive, 64 connections, 1 KiB body",
    "S7a": "1 MiB upload (POST) over TLS HTTP/1.1, 4 connections",
    "S7b": "1 MiB upload (POST) over TLS HTTP/2, 2 connections x 2 streams",
    "S8a": "latency at a fixed rate, TLS HTTP/1.1",
    "S8b": "latency at a fixed rate, TLS HTTP/2",
}
UNIT = {"S4": "CPU ms/GiB", "S4L": "CPU ms/GiB", "S7a": "CPU ms/GiB", "S7b": "CPU ms/GiB", "S5": "KiB/conn"}

WRK_LUA = """
done = function(s, l, r)
  io.write(string.format("\\nJSON {\\"requests\\":%d,\\"bytes\\":%d,\\"dur_us\\":%d,\\"err\\":%d,\\"p50\\":%d,\\"p99\\":%d}\\n",
    s.requests, s.bytes, s.duration, s.errors.connect+s.errors.read+s.errors.write+s.errors.status+s.errors.timeout,
    l:percentile(50), l:percentile(99)))
end
"""


def free_port(used=set()):
    """A free loopback port below the ephemeral range; where the search starts depends on the process."""
    start = os.getpid() * 64 % 12000
    for p in (18000 + (start + i) % 12000 for i in range(12000)):
        if p in used:
            continue
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind(("127.0.0.1", p))
            except OSError:
                continue
        used.add(p)
        return p
    raise SystemExit("no free port")


def tree(root):
    """root and all its descendants."""
    kids = {}
    for d in os.listdir("/proc"):
        if d.isdigit():
            try:
                with open(f"/proc/{d}/stat") as f:
                    ppid = int(f.read().rsplit(")", 1)[1].split()[1])
            except (OSError, IndexError):
                continue
            kids.setdefault(ppid, []).append(int(d))
    out, todo = [], [root]
    while todo:
        p = todo.pop()
        out.append(p)
        todo += kids.get(p, [])
    return out


def cpu_seconds(root):
    t = 0
    for p in tree(root):
        try:
            with open(f"/proc/{p}/stat") as f:
                v = f.read().rsplit(")", 1)[1].split()
            t += int(v[11]) + int(v[12])
        except OSError:
            pass
    return t / TICK


def rss_kib(root):
    t = 0
    for p in tree(root):
        try:
            with open(f"/proc/{p}/smaps_rollup") as f:
                t += int(re.search(r"^Pss:\s+(\d+)", f.read(), re.M).group(1))
        except (OSError, AttributeError):
            try:
                with open(f"/proc/{p}/statm") as f:
                    t += int(f.read().split()[1]) * PAGE // 1024
            except OSError:
                pass
    return t


def core_busy(cpu):
    """Seconds this core was busy and seconds stolen by the host, since boot."""
    with open("/proc/stat") as f:
        for line in f:
            if line.startswith(f"cpu{cpu} "):
                v = [int(x) for x in line.split()[1:]]
                return (v[0] + v[1] + v[2] + v[5] + v[6]) / TICK, v[7] / TICK
    return 0.0, 0.0


def speed(cpu):
    """Milliseconds of a fixed piece of work on the proxy's core: shows when the (virtual) machine itself slows down."""
    old = os.sched_getaffinity(0)
    os.sched_setaffinity(0, parse_cpus(cpu))
    best = 1e9
    for _ in range(5):
        t, x = time.perf_counter(), 0
        for i in range(100000):
            x = (x * 31 + i) & 0xFFFFFF
        best = min(best, time.perf_counter() - t)
    os.sched_setaffinity(0, old)
    return round(best * 1000, 2)


class Bench:
    def __init__(self, a):
        self.a = a
        self.dir = tempfile.mkdtemp(prefix="peerbench-")
        self.procs = []
        self.running = {}
        self.v = {"cert": f"{self.dir}/cert.pem", "key": f"{self.dir}/key.pem", "pem": f"{self.dir}/both.pem",
                  "body_dir": f"{self.dir}/bodies", "body_1k": ("0123456789abcdef" * 64),
                  "origin_port": free_port(), "origin_aux_port": free_port()}
        os.mkdir(self.v["body_dir"])
        os.chmod(self.dir, 0o755)
        for name, n in (("1m", 1), ("100m", 100)):
            with open(f"{self.v['body_dir']}/{name}", "wb") as f:
                for _ in range(n):
                    f.write(b"0123456789abcdef" * 65536)
        shutil.copy(f"{self.v['body_dir']}/1m", f"{self.dir}/upload")
        with open(f"{self.dir}/done.lua", "w") as f:
            f.write(WRK_LUA)
        subprocess.run(["env", "-u", "OPENSSL_CONF", "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                        "-keyout", self.v["key"], "-out", self.v["cert"], "-days", "30", "-subj", "/CN=localhost",
                        "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"], check=True, capture_output=True)
        with open(self.v["pem"], "w") as f:
            f.write(open(self.v["cert"]).read() + open(self.v["key"]).read())

    # ---- processes -------------------------------------------------------------------------------------------------
    def spawn(self, argv, cpus, tag):
        log = open(f"{self.dir}/{tag}.out", "ab")
        env = {k: x for k, x in os.environ.items() if k != "OPENSSL_CONF"}
        p = subprocess.Popen(["taskset", "-c", cpus] + argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                             start_new_session=True, env=env)
        self.procs.append(p)
        return p

    def stop(self, p):
        if p.poll() is None:
            os.killpg(p.pid, signal.SIGTERM)  # only the session this program started
            try:
                p.wait(3)
            except subprocess.TimeoutExpired:
                os.killpg(p.pid, signal.SIGKILL)
                p.wait()
        if p in self.procs:
            self.procs.remove(p)

    def wait_port(self, port, p, tag, secs=20):
        end = time.time() + secs
        while time.time() < end:
            if p.poll() is not None:
                break
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                time.sleep(0.05)
        tail = open(f"{self.dir}/{tag}.out", errors="replace").read()[-1500:]
        raise RuntimeError(f"{tag} does not listen on {port}:\n{tail}")

    def render(self, src, dst, v):
        with open(src) as f:
            text = Tmpl(f.read()).substitute(v)
        with open(dst, "w") as f:
            f.write(text)

    def start_origin(self):
        v = dict(self.v, config_dir=self.dir)
        self.render(f"{HERE}/conf/origin-nginx.conf", f"{self.dir}/origin.conf", v)
        p = self.spawn(["nginx", "-c", f"{self.dir}/origin.conf", "-p", self.dir], self.a.load_cpus, "origin")
        self.wait_port(self.v["origin_port"], p, "origin")

    def start_peer(self, name):
        if name in self.running:
            return self.running[name]
        d = f"{self.dir}/{name}"
        os.makedirs(d, exist_ok=True)
        v = dict(self.v, config_dir=d, tls_port=free_port(), plain_port=free_port(), admin_port=free_port())
        if name in self.a.subjects:
            cmd = self.a.subjects[name]
            for src in self.a.templates.get(name, []):
                self.render(src, f"{d}/{os.path.basename(src)}", v)
        else:
            _, tmpl, out, cmd, extra = PEERS[name]
            v.update({k: s.format(config_dir=d) for k, s in extra.items()})
            self.render(f"{HERE}/conf/{tmpl}", f"{d}/{out}", v)
        p = self.spawn(shlex.split(cmd.format(**v)), self.a.proxy_cpus, name)
        for k in ("plain_port", "tls_port"):
            self.wait_port(v[k], p, name)
        self.running[name] = (p, v)
        self.probe(name, v)
        return self.running[name]

    def stop_peer(self, name):
        if name in self.running:
            p, v = self.running.pop(name)
            if name in self.a.afters and p.poll() is None:
                r = subprocess.run(shlex.split(self.a.afters[name].format(**v)), capture_output=True, text=True, timeout=60)
                print(f"{name} at its end:\n{(r.stdout + r.stderr).strip()}")
            self.stop(p)

    def probe(self, name, v):
        """One request on each port, and what TLS was agreed."""
        for port, tls in ((v["plain_port"], False), (v["tls_port"], True)):
            s = socket.create_connection(("127.0.0.1", port), 10)
            s.settimeout(10)
            if tls:
                s = client_ctx().wrap_socket(s, server_hostname="localhost")
                self.a.tlsinfo[name] = f"{s.version()} {s.cipher()[0]}"
            s.sendall(b"GET /1k HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            got = b""
            while True:
                b = s.recv(65536)
                if not b:
                    break
                got += b
            s.close()
            if b" 200 " not in got[:20] or len(got) < 1024:
                raise RuntimeError(f"{name} {'TLS' if tls else 'plain'} probe: {got[:200]!r}")

    def load(self, argv, timeout):
        r = subprocess.run(["taskset", "-c", self.a.load_cpus] + argv, capture_output=True, text=True, timeout=timeout)
        return r.stdout + r.stderr

    # ---- one measurement -------------------------------------------------------------------------------------------
    def measure(self, name, sc, secs):
        if sc == "S5":
            return self.idle_memory(name)
        p, v = self.start_peer(name)
        tls, plain = f"https://localhost:{v['tls_port']}", f"http://localhost:{v['plain_port']}"
        cto = f"--connect-to=127.0.0.1:{v['tls_port']}"
        wrk = ["wrk", "-t1", f"-d{secs}s", "-s", f"{self.dir}/done.lua", "--timeout", "20s"]
        h2 = ["h2load", "-t1", "-D", str(secs), cto]
        c0, b0, t0 = cpu_seconds(p.pid), core_busy(self.a.proxy_cpus), time.time()
        if sc in ("S1", "S6", "S4", "S4L"):
            conns, path = {"S1": (64, "/1k"), "S6": (64, "/1k"), "S4": (4, "/1m"), "S4L": (2, "/100m")}[sc]
            out = self.load(wrk + [f"-c{conns}", (plain if sc == "S6" else tls) + path], secs + 60)
            m = json.loads(re.search(r"^JSON (.*)$", out, re.M).group(1))
            n, nbytes, errs, dur = m["requests"], m["bytes"], m["err"], m["dur_us"] / 1e6
            lat = {"p50": m["p50"], "p99": m["p99"]}
        elif sc == "S2":
            n, errs, dur, lat = self.h2out(self.load(h2 + ["-c16", "-m16", tls + "/1k"], secs + 60), None)
            nbytes = 0
        elif sc in ("S7a", "S7b"):
            mode = ["--h1", "-c4"] if sc == "S7a" else ["-c2", "-m2"]
            n, errs, dur, lat = self.h2out(self.load(h2 + mode + ["-d", f"{self.dir}/upload", tls + "/up"], secs + 60), None)
            nbytes = n * MIB
        elif sc in ("S8a", "S8b"):
            log = f"{self.dir}/lat.tsv"
            if os.path.exists(log):
                os.remove(log)
            c, per = 20, self.a.rate / 20
            mode = ["--h1"] if sc == "S8a" else ["-m8"]
            out = self.load(h2 + mode + [f"-c{c}", f"--rps={per:g}", f"--log-file={log}", tls + "/1k"], secs + 60)
            n, errs, dur, lat = self.h2out(out, log)
            nbytes = 0
        elif sc == "S3":
            n, errs, dur = self.handshakes(v["tls_port"], secs)
            nbytes, lat = 0, {}
        cpu, wall = cpu_seconds(p.pid) - c0, time.time() - t0
        b1 = core_busy(self.a.proxy_cpus)
        res = {"n": n, "errors": errs, "cpu_s": round(cpu, 3), "rate": n / dur, "busy": cpu / wall, "rss_mib": rss_kib(p.pid) / 1024,
               "foreign": max(0.0, (b1[0] - b0[0] - cpu) / wall), "steal": (b1[1] - b0[1]) / wall}
        res.update(lat)
        if sc in UNIT:
            res["value"] = cpu * 1000 / (nbytes / 2**30) if nbytes else None
            res["mib_s"] = nbytes / MIB / dur
        else:
            res["value"] = cpu * 1e6 / n if n else None
        return res

    def h2out(self, out, log):
        m = re.search(r"requests: \d+ total, \d+ started, (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored", out)
        t = re.search(r"finished in ([\d.]+)(ms|s|us)", out)
        if not m or not t:
            raise RuntimeError("h2load: " + out[-600:])
        dur = float(t.group(1)) * {"s": 1, "ms": 1e-3, "us": 1e-6}[t.group(2)]
        ok = re.search(r"status codes: (\d+) 2xx", out)
        good = min(int(m.group(2)), int(ok.group(1)))
        lat = {}
        if log:
            us = sorted(int(x.split("\t")[2]) for x in open(log))
            us = us or [0]
            lat = {k: us[min(len(us) - 1, int(len(us) * q))] for k, q in (("p50", .5), ("p99", .99), ("p999", .999))}
        return good, int(m.group(1)) - good, dur, lat

    def handshakes(self, port, secs):
        q = multiprocessing.Queue()
        ps = [multiprocessing.Process(target=hs_worker, args=(port, secs, self.a.load_cpus, q)) for _ in range(4)]
        for x in ps:
            x.start()
        got = [q.get(timeout=secs + 60) for _ in ps]
        for x in ps:
            x.join()
        return sum(g[0] for g in got), sum(g[1] for g in got), secs

    def idle_memory(self, name):
        """Fresh proxy; N idle TLS keep-alive connections after one request each."""
        self.stop_peer(name)
        p, v = self.start_peer(name)
        open_idle(v["tls_port"], 32, self.a.load_cpus, lambda: None)
        time.sleep(0.5)
        base = rss_kib(p.pid)
        c0 = cpu_seconds(p.pid)
        got = {}

        def look():
            time.sleep(2)
            got["rss"] = rss_kib(p.pid)
        ok = open_idle(v["tls_port"], self.a.idle, self.a.load_cpus, look)
        cpu = cpu_seconds(p.pid) - c0
        self.stop_peer(name)
        return {"n": ok, "errors": self.a.idle - ok, "value": (got["rss"] - base) / max(ok, 1), "rate": 0, "busy": 0,
                "cpu_s": cpu, "foreign": 0, "rss_mib": got["rss"] / 1024, "rss_start_mib": base / 1024}

    def close(self):
        for name in list(self.running):
            self.stop_peer(name)
        for p in list(self.procs):
            self.stop(p)
        if not self.a.keep:
            shutil.rmtree(self.dir, ignore_errors=True)


def client_ctx():
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    c.check_hostname = False
    c.verify_mode = ssl.CERT_NONE
    c.minimum_version = ssl.TLSVersion.TLSv1_3
    c.set_alpn_protocols(["http/1.1"])
    return c


def connect(ctx, port):
    s = socket.create_connection(("127.0.0.1", port), 10)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # or the request waits for the peer's delayed ACK
    return ctx.wrap_socket(s, server_hostname="localhost")


def hs_worker(port, secs, cpus, q):
    os.sched_setaffinity(0, parse_cpus(cpus))
    ctx, n, bad, end = client_ctx(), 0, 0, time.time() + secs
    req = b"GET /1k HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    while time.time() < end:
        try:
            s = connect(ctx, port)
            s.sendall(req)
            got = 0
            while True:
                b = s.recv(65536)
                if not b:
                    break
                got += len(b)
            s.close()
            if got > 1024:
                n += 1
            else:
                bad += 1
        except OSError:
            bad += 1
    q.put((n, bad))


def open_idle(port, count, cpus, then):
    old = os.sched_getaffinity(0)
    os.sched_setaffinity(0, parse_cpus(cpus))
    ctx, socks, req = client_ctx(), [], b"GET /1k HTTP/1.1\r\nHost: localhost\r\n\r\n"
    try:
        for _ in range(count):
            s = connect(ctx, port)
            s.sendall(req)
            got = 0
            while got < 1024:
                b = s.recv(65536)
                if not b:
                    break
                got += len(b)
            socks.append(s)
        then()
    except OSError as e:
        print(f"  idle connections: stopped at {len(socks)}: {e}", file=sys.stderr)
        then()
    finally:
        for s in socks:
            s.close()
        os.sched_setaffinity(0, old)
    return len(socks)


def parse_cpus(s):
    out = set()
    for part in s.split(","):
        a, _, b = part.partition("-")
        out |= set(range(int(a), int(b or a) + 1))
    return out


def med(xs):
    xs = [x for x in xs if x is not None]
    return statistics.median(xs) if xs else float("nan")


def table(results, sc, names, bases, out=sys.stdout):
    rows = {n: [r for r in results if r["scenario"] == sc and r["peer"] == n] for n in names}
    rows = {n: r for n, r in rows.items() if r}
    if not rows:
        return
    unit = UNIT.get(sc, "CPU us/req")
    order = sorted(rows.items(), key=lambda kv: med([r["value"] for r in kv[1]]))
    base = [s for s in bases if s in rows] or [order[0][0]]
    print(f"\n{sc}: {SCENARIOS[sc]}", file=out)
    head = f"{'peer':<16}{unit:>12}{'min':>9}{'max':>9}{'rate/s':>9}{'MiB/s':>8}{'busy':>6}{'p50us':>7}{'p99us':>8}{'p999us':>8}{'RSS MiB':>9}{'err':>6}"
    print(head + "".join(f"{(b[:12] + '/this'):>18}" for b in base), file=out)
    for n, rs in order:
        vals = [r["value"] for r in rs if r["value"] is not None]
        g = lambda k: med([r.get(k) for r in rs])
        f = lambda x, d=0: "-" if x != x else f"{x:.{d}f}"
        line = (f"{n:<16}{f(med(vals), 1):>12}{f(min(vals, default=float('nan')), 1):>9}{f(max(vals, default=float('nan')), 1):>9}{f(g('rate')):>9}{f(g('mib_s')):>8}"
                f"{f(g('busy') * 100):>5}%{f(g('p50')):>7}{f(g('p99')):>8}{f(g('p999')):>8}{f(g('rss_mib'), 1):>9}"
                f"{sum(r['errors'] for r in rs):>6}")
        for b in base:  # ratio within each round, then the median: a slow spell of the machine hits both sides
            mine = {r["round"]: r["value"] for r in rs if r["value"]}
            line += f"{f(med([r['value'] / mine[r['round']] for r in rows[b] if r['value'] and r['round'] in mine]), 2):>18}"
        print(line, file=out)
    sp = [r["speed_ms"] for rs in rows.values() for r in rs]
    print(f"machine speed during these runs (fixed work, ms): {min(sp)} .. {statistics.median(sp)} .. {max(sp)}", file=out)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--scenarios", default="S1,S2,S3,S4,S5,S6,S7a,S7b,S8a,S8b", help="comma list; also S4L; S4,S7,S8 take all their parts with a '+', e.g. S7+")
    ap.add_argument("--peers", default="nginx,haproxy,caddy", help="comma list of: " + ", ".join(PEERS))
    ap.add_argument("--rounds", type=int, default=5)
    ap.add_argument("--seconds", type=int, default=4, help="length of one run")
    ap.add_argument("--rate", type=int, default=2000, help="requests/s of S8")
    ap.add_argument("--idle", type=int, default=2000, help="connections of S5")
    ap.add_argument("--proxy-cpus", default="0")
    ap.add_argument("--load-cpus", default="1", help="for the load generator and the origin")
    ap.add_argument("--nice", type=int, default=0, help="priority of everything this program starts, e.g. -15 on a machine that others use too (root)")
    ap.add_argument("--subject", action="append", default=[], metavar="NAME:CMD",
                    help="extra proxy; CMD may use {config_dir} {tls_port} {plain_port} {admin_port} {origin_port} {cert} {key} {pem}")
    ap.add_argument("--template", action="append", default=[], metavar="NAME:FILE",
                    help="file with @{tls_port}-style variables, rendered into the subject's {config_dir}")
    ap.add_argument("--after", action="append", default=[], metavar="NAME:CMD", help="run before that subject is stopped, and print what it says; variables as in --subject")
    ap.add_argument("--base", default="", help="comma list: which proxies the ratio columns are for (default: the first two subjects)")
    ap.add_argument("--json", default="peerbench.json")
    ap.add_argument("--append", action="store_true", help="add to the runs already in the JSON file")
    ap.add_argument("--keep", action="store_true", help="keep the temporary directory")
    ap.add_argument("--check", action="store_true", help="start every peer, send one request on each port, and stop")
    a = ap.parse_args()
    a.subjects = dict(s.split(":", 1) for s in a.subject)
    a.afters = dict(s.split(":", 1) for s in a.after)
    a.templates, a.tlsinfo = {}, {}
    for t in a.template:
        n, f = t.split(":", 1)
        a.templates.setdefault(n, []).append(f)
    scs = []
    for s in a.scenarios.split(","):
        scs += [k for k in SCENARIOS if k.startswith(s[:-1])] if s.endswith("+") else [s]
    for s in scs:
        if s not in SCENARIOS:
            raise SystemExit(f"unknown scenario {s}; have {', '.join(SCENARIOS)}")
    for tool in ("nginx", "wrk", "h2load", "openssl", "taskset"):
        if not shutil.which(tool):
            raise SystemExit(f"needs {tool} (README.md lists the Debian packages)")
    lo, hi = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hi, 65536), hi))
    if a.nice:
        os.nice(a.nice)
    names = []
    for n in [x for x in a.peers.split(",") if x] + list(a.subjects):
        if n in a.subjects:
            names.append(n)
        elif n not in PEERS:
            raise SystemExit(f"unknown peer {n}; have {', '.join(PEERS)}")
        elif all(shutil.which(b) for b in PEERS[n][0]):
            names.append(n)
        else:
            print(f"SKIPPED {n}: {', '.join(PEERS[n][0])} is not installed")
    old = []
    if a.append and os.path.exists(a.json):
        old = json.load(open(a.json))["runs"]
    b, results = Bench(a), []
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that "finally" stops what was started
    try:
        b.start_origin()
        for n in list(names):
            try:
                b.start_peer(n)
                print(f"{n:<16}{a.tlsinfo[n]}")
            except (RuntimeError, OSError) as e:
                print(f"SKIPPED {n}: {e}")
                b.stop_peer(n)
                names.remove(n)
        for sc in [] if a.check else scs:
            for rnd in range(a.rounds + 1):  # round 0 only warms up
                for n in names:
                    if rnd == 0 and sc == "S5":
                        continue
                    try:
                        r = b.measure(n, sc, 1 if rnd == 0 else a.seconds)
                    except (RuntimeError, subprocess.TimeoutExpired, OSError, AttributeError, ZeroDivisionError) as e:
                        print(f"  {sc} {n}: FAILED {str(e)[:300]}")
                        continue
                    if rnd:
                        results.append(dict(r, scenario=sc, peer=n, round=rnd, at=int(time.time()), speed_ms=speed(a.proxy_cpus)))
                        if r.get("foreign", 0) > 0.1 or r.get("steal", 0) > 0.1:
                            print(f"  note: {sc} round {rnd} {n}: the proxy's core was {r['foreign']:.0%} taken by other work"
                                  f" and {r['steal']:.0%} stolen by the host")
            table(results, sc, names, a.base.split(",") if a.base else list(a.subjects)[:2])
            sys.stdout.flush()
            with open(a.json, "w") as f:
                json.dump({"kernel": os.uname().release, "cpus": os.cpu_count(), "tls": a.tlsinfo, "seconds": a.seconds, "runs": old + results}, f, indent=1)
    finally:
        b.close()


if __name__ == "__main__":
    main()
