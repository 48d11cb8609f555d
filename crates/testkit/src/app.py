"""A web app of the standard library alone, that can be told to misbehave.

It knows PORT and, for /sql, DATABASE_URL. `version` in its folder is what it calls itself. Knobs, in `knobs.json` there:

  start_delay_ms   wait before listening                exit_at_once    end with this code instead
  listen_nowhere   stay, but open no port               never_ready     answer 503 to /healthz
  ignore_sigterm   go on until killed                   error_percent   answer 500 to this share of requests
  delay_ms         wait before every answer             leak_children   leave so many children behind at the start
  flood_lines      write so many lines at the start     crash_after_ms  end with code 1 after this time
  workers          of /work, at once                    work            what /work does, see `work`

Every answer has X-App-Version and X-App-Pid. Paths:

  /                a line of text                       /healthz        200
  /bytes/N         N bytes                              /slow/MS        after MS milliseconds
  /status/N        status N                             /echo           the request's body (POST)
  /stream/N/MS     N chunks, MS apart                   /events/N/MS    N server-sent events, MS apart
  /headers         the request's head as JSON           /env            the environment as JSON
  /crash           ends the process, no answer (POST)   /hang           no answer, for an hour (POST)
  /sql             runs the body by psql (POST)         /eat/MB         takes so much memory, then answers
  /visit           writes a row of `visits (id bigserial)` and reads it again, by a pool of kept connections
  /visits          how many rows `visits` has, by the same pool
  /work            what the knob `work` says

A thread for each connection, and a parser that does only what HTTP/1.1 clients of a test need, so that it is fast.
On SIGTERM: accepts no more, finishes what it has begun, closes idle connections, ends with 0.
"""

import base64
import contextlib
import hashlib
import hmac
import json
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.parse


def read(name, otherwise):
    try:
        with open(name) as file:
            return file.read()
    except FileNotFoundError:
        return otherwise


KNOBS = json.loads(read("knobs.json", "{}"))
VERSION = read("version", "0").strip()
REASONS = {200: "OK", 204: "No Content", 404: "Not Found", 500: "Internal Server Error", 503: "Service Unavailable"}
IDENTITY = f"X-App-Version: {VERSION}\r\nX-App-Pid: {os.getpid()}\r\n"

stopping = threading.Event()
lock = threading.Lock()
workers = threading.BoundedSemaphore(KNOBS["workers"]) if "workers" in KNOBS else contextlib.nullcontext()
idle = set()
open_connections = 0
answered = 0


class Gone(Exception):
    """The client went away."""


class Connection:
    def __init__(self, sock):
        self.sock = sock
        self.buffer = b""

    def fill(self):
        more = self.sock.recv(65536)
        if not more:
            raise Gone
        self.buffer += more

    def line_block(self):
        while b"\r\n\r\n" not in self.buffer:
            self.fill()
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        return head.decode("latin-1")

    def take(self, count):
        while len(self.buffer) < count:
            self.fill()
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    def line(self):
        while b"\r\n" not in self.buffer:
            self.fill()
        line, _, self.buffer = self.buffer.partition(b"\r\n")
        return line

    def body(self, headers):
        if headers.get("expect", "").lower() == "100-continue":
            self.sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        if "chunked" in headers.get("transfer-encoding", "").lower():
            parts = []
            while size := int(self.line().split(b";")[0], 16):
                parts.append(self.take(size))
                self.line()
            while self.line():
                pass
            return b"".join(parts)
        return self.take(int(headers.get("content-length", 0)))

    def answer(self, status, body=b"", kind="text/plain", close=False, without_body=False):
        length = "" if status == 204 else f"Content-Length: {len(body)}\r\nContent-Type: {kind}\r\n"
        last = "Connection: close\r\n" if close else ""
        head = f"HTTP/1.1 {status} {REASONS.get(status, 'Status')}\r\n{length}{IDENTITY}{last}\r\n"
        self.sock.sendall(head.encode() + (b"" if without_body or status == 204 else body))

    def pieces(self, kind, pieces, pause):
        head = f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: {kind}\r\n{IDENTITY}\r\n"
        self.sock.sendall(head.encode())
        for piece in pieces:
            self.sock.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
            time.sleep(pause)
        self.sock.sendall(b"0\r\n\r\n")


class Database:
    """A connection to PostgreSQL by the simple query protocol. As drivers do, it retries nothing."""

    pool = []

    def __init__(self):
        url = urllib.parse.urlsplit(os.environ["DATABASE_URL"])
        self.sock = socket.create_connection((url.hostname, url.port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        words = ("user", url.username, "database", url.path[1:], "")
        start = b"".join(word.encode() + b"\0" for word in words)
        self.sock.sendall(struct.pack("!II", len(start) + 8, 196608) + start)
        self.login(url.password)
        self.until_ready()

    def login(self, password):
        """SCRAM-SHA-256, without looking at what the server proves in return."""
        self.message()
        first = "n=,r=" + base64.b64encode(os.urandom(18)).decode()
        said = f"n,,{first}".encode()
        self.send(b"p", b"SCRAM-SHA-256\0" + struct.pack("!I", len(said)) + said)
        challenge = self.message()[1][4:].decode()
        asked = dict(part.split("=", 1) for part in challenge.split(","))
        salt, rounds = base64.b64decode(asked["s"]), int(asked["i"])
        salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, rounds)
        last = f"c=biws,r={asked['r']}"
        key = hmac.digest(salted, b"Client Key", "sha256")
        signed = f"{first},{challenge},{last}".encode()
        signature = hmac.digest(hashlib.sha256(key).digest(), signed, "sha256")
        proof = base64.b64encode(bytes(a ^ b for a, b in zip(key, signature))).decode()
        self.send(b"p", f"{last},p={proof}".encode())

    def send(self, kind, body):
        self.sock.sendall(kind + struct.pack("!I", len(body) + 4) + body)

    def take(self, count):
        while len(self.buffer) < count:
            more = self.sock.recv(65536)
            if not more:
                raise OSError("the database closed the connection")
            self.buffer += more
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    def message(self):
        kind, length = struct.unpack("!cI", self.take(5))
        return kind, self.take(length - 4)

    def until_ready(self):
        """The first column of each row."""
        rows, error = [], None
        while True:
            kind, body = self.message()
            if kind == b"D":
                (length,) = struct.unpack("!i", body[2:6])
                rows.append(body[6 : 6 + length].decode())
            elif kind == b"E":
                error = body.replace(b"\0", b" ").decode()
            elif kind == b"Z":
                break
        if error:
            raise OSError(error)
        return rows

    def query(self, text):
        self.send(b"Q", text.encode() + b"\0")
        return self.until_ready()


@contextlib.contextmanager
def connected():
    """A connection of the pool. One on which something went wrong does not go back."""
    with lock:
        database = Database.pool.pop() if Database.pool else None
    database = database or Database()
    yield database
    with lock:
        Database.pool.append(database)


def visit():
    """A row that is written and then read, or whatever went wrong."""
    with connected() as database:
        (written,) = database.query("INSERT INTO visits DEFAULT VALUES RETURNING id")
        if database.query(f"SELECT id FROM visits WHERE id = {written}") != [written]:
            raise OSError(f"{written} was written and is not to be seen")
    return written


def work(todo):
    """So much processor time (`cpu_ms`), so long a wait (`wait_ms`), statements (`sql`, `{random}` in them is a number below a
    million), and before a `COMMIT` another wait (`hold_ms`). As many at once as there are `workers`."""
    with workers:
        until = time.thread_time() + todo.get("cpu_ms", 0) / 1000
        while time.thread_time() < until:
            pass
        time.sleep(todo.get("wait_ms", 0) / 1000)
        if not todo.get("sql"):
            return
        with connected() as database:
            for statement in todo["sql"]:
                if statement == "COMMIT":
                    time.sleep(todo.get("hold_ms", 0) / 1000)
                database.query(statement.replace("{random}", str(random.randrange(1_000_000))))


def serve(sock):
    global open_connections
    connection = Connection(sock)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while True:
            with lock:
                if stopping.is_set():
                    return
                idle.add(sock)
            while not connection.buffer:
                connection.fill()
            with lock:
                idle.discard(sock)
            head = connection.line_block()
            close = one(connection, head)
            if close or stopping.is_set():
                return
    except (Gone, OSError, ValueError):
        pass
    finally:
        with lock:
            idle.discard(sock)
            open_connections -= 1
        sock.close()


def one(connection, head):
    """Answers one request. True: the connection ends with it."""
    global answered
    first, *lines = head.split("\r\n")
    method, target, version = first.split(" ")
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    body = connection.body(headers)
    wanted = headers.get("connection", "").lower()
    close = stopping.is_set() or "close" in wanted or (version == "HTTP/1.0" and "keep-alive" not in wanted)
    path, *words = target.split("?")[0].strip("/").split("/")

    def answer(status, text=b"", kind="text/plain"):
        connection.answer(status, text, kind, close=close, without_body=method == "HEAD")

    if path == "healthz":
        answer(503 if KNOBS.get("never_ready") else 200, b"ok\n")
        return close
    answered += 1
    if KNOBS.get("delay_ms"):
        time.sleep(KNOBS["delay_ms"] / 1000)
    # Spread evenly: of any hundred answers in a row exactly this many.
    percent = KNOBS.get("error_percent", 0)
    if percent and (answered * percent) % 100 < percent:
        answer(500, b"told to fail\n")
    elif path == "":
        answer(200, f"{VERSION} {os.getpid()}\n".encode())
    elif path == "bytes":
        answer(200, b"x" * int(words[0]), "application/octet-stream")
    elif path == "slow":
        time.sleep(int(words[0]) / 1000)
        answer(200, b"slow\n")
    elif path == "status":
        answer(int(words[0]), b"as asked\n")
    elif path == "echo":
        answer(200, body, headers.get("content-type", "application/octet-stream"))
    elif path == "stream":
        count, pause = int(words[0]), int(words[1]) / 1000
        connection.pieces("text/plain", (b"piece %d\n" % at for at in range(count)), pause)
    elif path == "events":
        count, pause = int(words[0]), int(words[1]) / 1000
        connection.pieces("text/event-stream", (b"data: %d\n\n" % at for at in range(count)), pause)
    elif path == "headers":
        text = json.dumps({"method": method, "target": target, "version": version, "headers": headers})
        answer(200, text.encode(), "application/json")
    elif path == "env":
        answer(200, json.dumps(dict(os.environ)).encode(), "application/json")
    elif path == "crash" and method == "POST":
        os._exit(1)
    elif path == "hang" and method == "POST":
        time.sleep(3600)
    elif path == "eat":
        # No page of it is shared, nor the same as another.
        eaten = os.urandom(1 << 20) * int(words[0])
        answer(200, b"%d\n" % len(eaten))
    elif path == "sql" and method == "POST":
        command = ["psql", os.environ["DATABASE_URL"], "-XAtq", "-v", "ON_ERROR_STOP=1"]
        done = subprocess.run(command, input=body, capture_output=True)
        answer(200 if done.returncode == 0 else 500, done.stdout + done.stderr)
    elif path == "work":
        try:
            work(KNOBS.get("work", {}))
            answer(200, b"done\n")
        except OSError as error:
            print(f"work: {error}", flush=True)
            answer(500, str(error).encode())
    elif path == "visits":
        try:
            with connected() as database:
                answer(200, database.query("SELECT count(*) FROM visits")[0].encode())
        except OSError as error:
            print(f"visits: {error}", flush=True)
            answer(500, str(error).encode())
    elif path == "visit":
        try:
            answer(200, visit().encode())
        except OSError as error:
            print(f"visit: {error}", flush=True)
            answer(500, str(error).encode())
    else:
        answer(404, b"nothing here\n")
    return close


def stop(listener):
    """Ends when every connection has: requests that have begun are finished."""
    stopping.set()
    # Closing alone would leave the other thread waiting in accept.
    listener.shutdown(socket.SHUT_RDWR)
    with lock:
        for sock in idle:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
    while True:
        with lock:
            if open_connections == 0:
                break
        time.sleep(0.005)
    print(f"{VERSION} ends", flush=True)
    os._exit(0)


def crash_later(after_ms):
    time.sleep(after_ms / 1000)
    print("told to crash", file=sys.stderr, flush=True)
    os._exit(1)


def main():
    global open_connections
    if "exit_at_once" in KNOBS:
        print("told to exit at once", file=sys.stderr, flush=True)
        sys.exit(KNOBS["exit_at_once"])
    if KNOBS.get("ignore_sigterm"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for _ in range(KNOBS.get("leak_children", 0)):
        # In a process group of their own, so that only a supervisor that looks for them finds them.
        subprocess.Popen(["sleep", "3600"], process_group=0)
    for at in range(KNOBS.get("flood_lines", 0)):
        print(f"line {at} of a flood that says nothing, but says it at some length: {'x' * 60}")
    time.sleep(KNOBS.get("start_delay_ms", 0) / 1000)
    if KNOBS.get("listen_nowhere"):
        print("listening nowhere", flush=True)
        time.sleep(3600)
    listener = socket.create_server(("127.0.0.1", int(os.environ["PORT"])), backlog=1024)
    if not KNOBS.get("ignore_sigterm"):
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=stop, args=(listener,)).start())
    if "crash_after_ms" in KNOBS:
        threading.Thread(target=crash_later, args=(KNOBS["crash_after_ms"],), daemon=True).start()
    print(f"{VERSION} listens on {listener.getsockname()[1]}", flush=True)
    while True:
        try:
            sock, _ = listener.accept()
        except OSError:
            break
        with lock:
            open_connections += 1
        threading.Thread(target=serve, args=(sock,), daemon=True).start()
    threading.Event().wait()


main()
