"""A guestbook: a form and the last 20 entries. Configured by PORT and DATABASE_URL alone.

`app.py` serves, `app.py migrate` creates the table.
"""

import html
import os
import signal
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import pg8000.dbapi

NAME_LIMIT, TEXT_LIMIT, FORM_LIMIT = 40, 500, 16_384  # characters, characters, bytes
DATABASE_TIMEOUT = 5  # seconds, for connecting and for every answer
IDLE_TIMEOUT = 65  # seconds a kept-alive connection may be silent
MIGRATE_PATIENCE = 10  # seconds

PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Guestbook</title>
<style>
  body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 36rem; margin: 2rem auto; padding: 0 1rem }}
  form {{ display: grid; gap: .5rem }} input, textarea, button {{ font: inherit; padding: .4rem }}
  article {{ border-top: 1px solid #ccc; margin-top: 1rem; padding-top: .5rem; overflow-wrap: anywhere }}
  small {{ color: #666 }} p {{ margin: .2rem 0; white-space: pre-line }}
</style>
<h1>Guestbook</h1>
<form method="post" action="/">
  <input name="name" placeholder="Your name" maxlength="40" required>
  <textarea name="text" placeholder="Your words" maxlength="500" required></textarea>
  <button>Sign the book</button>
</form>
{entries}
"""
ENTRY = "<article><b>{0}</b> <small>{1:%d %b %Y, %H:%M}</small><p>{2}</p></article>"

local = threading.local()


def connect():
    """Opens a connection to the database that DATABASE_URL names."""
    url = urlsplit(os.environ["DATABASE_URL"])
    connection = pg8000.dbapi.connect(
        user=unquote(url.username or "postgres"),
        password=unquote(url.password) if url.password else None,
        host=url.hostname or "localhost",
        port=url.port or 5432,
        database=unquote(url.path[1:]) or None,
        timeout=DATABASE_TIMEOUT,
        application_name="guestbook",
    )
    connection.autocommit = True
    return connection


def database():
    """This thread's connection, opened when first needed."""
    if getattr(local, "connection", None) is None:
        local.connection = connect()
    return local.connection


def forget():
    """Closes this thread's connection; the next query opens another."""
    connection, local.connection = getattr(local, "connection", None), None
    if connection is not None:
        try:
            connection.close()
        except Exception:
            pass  # It was broken: that is why it is being closed.


def query(sql, *values):
    """Runs one statement. After a broken connection, only a read is tried again: a write may have been done."""
    reads = sql.startswith("SELECT")
    for last in (False, True) if reads else (True,):
        try:
            cursor = database().cursor()
            cursor.execute(sql, values)
            return cursor.fetchall() if reads else None
        except Exception:
            forget()
            if last:
                raise


class Server(ThreadingHTTPServer):
    """Knows which connections wait for a request, so that stopping ends those and lets the others finish."""

    daemon_threads = False  # server_close waits for all threads.
    request_queue_size = 128

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.lock, self.waiting, self.stopping = threading.Lock(), set(), False

    def waits(self, connection):
        with self.lock:
            self.waiting.add(connection)
            if self.stopping:
                hang_up(connection)

    def works(self, connection):
        with self.lock:
            self.waiting.discard(connection)

    def stop(self):
        self.shutdown()  # No new connections,
        with self.lock:
            self.stopping = True
            for connection in self.waiting:
                hang_up(connection)
        self.server_close()  # and an end to the old ones.


def hang_up(connection):
    """Ends a connection after what it has sent already; answers can still be written."""
    try:
        connection.shutdown(socket.SHUT_RD)
    except OSError:
        pass  # The client was faster.


class Guestbook(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # Connections are kept; every answer says how long it is.
    timeout = IDLE_TIMEOUT
    wbufsize = -1  # Head and body leave in one packet,
    disable_nagle_algorithm = True  # and without waiting for one.

    def handle_one_request(self):
        self.server.waits(self.connection)
        super().handle_one_request()

    def parse_request(self):
        self.server.works(self.connection)
        return super().parse_request()

    def finish(self):
        self.server.works(self.connection)
        super().finish()
        forget()  # The thread ends with its client's connection.

    def do_GET(self):
        path = urlsplit(self.path).path
        if path == "/healthz":
            self.answering(lambda: query("SELECT 1") and self.reply(200, "ok\n", "text/plain"))
        elif path == "/":
            self.answering(self.show)
        else:
            self.reply(404, "Nothing here.\n", "text/plain")

    do_HEAD = do_GET

    def do_POST(self):
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > FORM_LIMIT:
            self.close_connection = True  # What follows was not read.
            return self.reply(413, "A form of known and modest length, please.\n", "text/plain")
        form = parse_qs(self.rfile.read(int(length)).decode("utf-8", "replace"))
        self.answering(lambda: self.sign(form))

    def show(self):
        rows = query("SELECT name, written_at, body FROM entries ORDER BY id DESC LIMIT 20")
        entries = (ENTRY.format(html.escape(name), at, html.escape(body)) for name, at, body in rows)
        self.reply(200, PAGE.format(entries="\n".join(entries)))

    def sign(self, form):
        name, text = (form.get(key, [""])[0].replace("\0", "").strip() for key in ("name", "text"))
        if not 0 < len(name) <= NAME_LIMIT or not 0 < len(text) <= TEXT_LIMIT:
            return self.reply(422, "A name of up to 40 and a text of up to 500 characters, please.\n", "text/plain")
        query("SELECT 1")  # Replaces a connection that broke since it was last used.
        query("INSERT INTO entries (name, body) VALUES (%s, %s)", name, text)
        self.reply(303, "", location="/")

    def answering(self, work):
        try:
            work()
        except (pg8000.Error, OSError) as problem:
            print("database:", problem, file=sys.stderr, flush=True)
            self.reply(503, "The book is away for a moment. Please try again.\n", "text/plain")

    def reply(self, status, text, kind="text/html", location=None):
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind + "; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-cache")
        if location:
            self.send_header("Location", location)
        if self.close_connection or self.server.stopping:
            self.close_connection = True
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format, *values):
        print(format % values, flush=True)


def migrate():
    """Creates the table; waits for a database that is still starting."""
    deadline = time.monotonic() + MIGRATE_PATIENCE
    while True:
        try:
            connection = connect()
            break
        except (pg8000.Error, OSError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
    connection.autocommit = False  # So that the lock lasts until the table is there.
    cursor = connection.cursor()
    cursor.execute("SELECT pg_advisory_xact_lock(20)")
    cursor.execute(
        """CREATE TABLE IF NOT EXISTS entries (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            name text NOT NULL, body text NOT NULL,
            written_at timestamptz NOT NULL DEFAULT now())"""
    )
    connection.commit()
    connection.close()


def serve():
    """Serves until SIGTERM or SIGINT."""
    server = Server(("", int(os.environ["PORT"])), Guestbook)
    asked = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: asked.set())
    accepting = threading.Thread(target=server.serve_forever, args=(0.05,))
    accepting.start()
    print("listening on port", server.server_port, flush=True)
    asked.wait()
    server.stop()
    accepting.join()


if __name__ == "__main__":
    command = sys.argv[1] if len(sys.argv) > 1 else "serve"
    missing = [key for key in ("PORT", "DATABASE_URL") if key not in os.environ]
    if command == "migrate" and "DATABASE_URL" not in missing:
        migrate()
    elif command == "serve" and not missing:
        serve()
    else:
        sys.exit(f"missing: {', '.join(missing) or 'a command'}\nusage: PORT=8080 DATABASE_URL=postgres://... app.py [serve | migrate]")
