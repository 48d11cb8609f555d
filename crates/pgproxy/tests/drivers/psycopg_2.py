"""psycopg2: the simple protocol alone, cursors at the server, COPY, notifications, large objects."""

import io
import select
import sys
import threading
import time

import psycopg2
from psycopg2 import errors, extensions, extras

from common import run, url


def transactions():
    connection = psycopg2.connect(url)
    with connection, connection.cursor() as cursor:
        cursor.execute("create table p2 (id int primary key, data jsonb)")
    with connection, connection.cursor() as cursor:
        extras.execute_values(cursor, "insert into p2 values %s", [(n, extras.Json({"n": n})) for n in range(100)])
        extras.execute_batch(cursor, "update p2 set data = data || %s where id = %s", [('{"b": 1}', n) for n in range(100)])
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute("insert into p2 values (200, null)")
            cursor.execute("insert into p2 values (1, null)")
        raise AssertionError("a duplicate was taken")
    except errors.UniqueViolation:
        pass
    with connection, connection.cursor(cursor_factory=extras.DictCursor) as cursor:
        cursor.execute("select count(*) as rows, sum((data->>'b')::int) as sum from p2")
        row = cursor.fetchone()
        assert (row["rows"], row["sum"]) == (100, 100), row
        cursor.execute("drop table p2")
    connection.close()


def characteristics_of_a_session():
    connection = psycopg2.connect(url)
    connection.set_session(isolation_level="SERIALIZABLE", readonly=True)
    with connection, connection.cursor() as cursor:
        cursor.execute("show transaction_isolation")
        assert cursor.fetchone() == ("serializable",)
        try:
            cursor.execute("create table no (a int)")
            raise AssertionError("it was not read only")
        except errors.ReadOnlySqlTransaction:
            connection.rollback()
    connection.set_session(isolation_level="DEFAULT", readonly=False, autocommit=True)
    connection.set_client_encoding("LATIN1")
    with connection.cursor() as cursor:
        cursor.execute("select chr(228)")
        assert cursor.fetchone() == ("ä",)
    assert connection.encoding == "LATIN1"
    connection.close()


def cursors_at_the_server():
    connection = psycopg2.connect(url)
    with connection, connection.cursor("named") as cursor:
        cursor.itersize = 100
        cursor.execute("select n from generate_series(1, 1000) n")
        assert sum(row[0] for row in cursor) == 500_500
    with connection.cursor("held", withhold=True) as cursor:
        cursor.execute("select n from generate_series(1, 1000) n")
        connection.commit()
        assert cursor.fetchone() == (1,)
    connection.close()


def copies():
    connection = psycopg2.connect(url)
    with connection, connection.cursor() as cursor:
        cursor.execute("create table p2 (id int, name text)")
        cursor.copy_expert("copy p2 from stdin", io.StringIO("".join(f"{n}\tname {n}\n" for n in range(10_000))))
        out = io.StringIO()
        cursor.copy_expert("copy (select id from p2 order by id) to stdout", out)
        assert out.getvalue().split() == [str(n) for n in range(10_000)]
    try:
        with connection, connection.cursor() as cursor:
            cursor.copy_expert("copy p2 from stdin", io.StringIO("nonsense\tx\n"))
        raise AssertionError("a copy of nonsense succeeded")
    except errors.InvalidTextRepresentation:
        pass
    with connection, connection.cursor() as cursor:
        cursor.execute("drop table p2")
    connection.close()


def notifications():
    listener, sender = psycopg2.connect(url), psycopg2.connect(url)
    for connection in (listener, sender):
        connection.set_isolation_level(extensions.ISOLATION_LEVEL_AUTOCOMMIT)
    listener.cursor().execute("listen news")
    sender.cursor().execute("notify news, 'hello'")
    deadline = time.monotonic() + 10
    while not listener.notifies and time.monotonic() < deadline:
        select.select([listener], [], [], 1)
        listener.poll()
    assert [notify.payload for notify in listener.notifies] == ["hello"]
    listener.close()
    sender.close()


def large_objects():
    connection = psycopg2.connect(url)
    large = connection.lobject(0, "wb")
    large.write(b"x" * 100_000)
    large.close()
    connection.commit()
    large = connection.lobject(large.oid, "rb")
    assert large.read() == b"x" * 100_000
    large.unlink()
    connection.commit()
    connection.close()


def cancelled():
    connection = psycopg2.connect(url)
    ended = threading.Event()

    def cancel():
        # Again and again: one that arrives before the query does cancels nothing.
        while not ended.wait(0.05):
            connection.cancel()

    canceller = threading.Thread(target=cancel)
    canceller.start()
    try:
        connection.cursor().execute("select pg_sleep(60)")
        raise AssertionError("it was not cancelled")
    except errors.QueryCanceled:
        pass
    finally:
        ended.set()
        canceller.join()
    connection.close()


def write(acknowledge):
    connection = psycopg2.connect(url)
    connection.autocommit = True
    with connection.cursor() as cursor:
        while acknowledge(lambda n: cursor.execute("insert into written values (%s)", (n,))):
            pass


run(
    sys.argv,
    [
        transactions,
        characteristics_of_a_session,
        cursors_at_the_server,
        copies,
        notifications,
        large_objects,
        cancelled,
    ],
    write,
)
