"""psycopg 3: prepared statements, pipelines, COPY, cursors, notifications, async, and its pool."""

import asyncio
import sys

import psycopg
from psycopg import sql
from psycopg_pool import ConnectionPool

from common import run, url


def prepared_statements():
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("create table if not exists p3 (id int primary key, name text)")
        # Its threshold is five: some of these are prepared, and stay so over a change of the search path.
        for n in range(20):
            connection.execute("insert into p3 values (%s, %s)", (n, f"name {n}"))
        for n in range(20):
            row = connection.execute("select name from p3 where id = %s", (n,)).fetchone()
            assert row == (f"name {n}",), row
        row = connection.execute("select sum(id) from p3 where id < %s", (10,), prepare=True, binary=True).fetchone()
        assert row == (45,), row
        connection.execute("deallocate all")
        assert connection.execute("select count(*) from p3", prepare=True).fetchone() == (20,)
        connection.execute("drop table p3")


def transactions_and_savepoints():
    with psycopg.connect(url) as connection:
        connection.execute("create table p3 (id int primary key)")
        connection.commit()
        with connection.transaction():
            connection.execute("insert into p3 values (1)")
            try:
                with connection.transaction():
                    connection.execute("insert into p3 values (2)")
                    connection.execute("insert into p3 values (1)")
            except psycopg.errors.UniqueViolation:
                pass
            connection.execute("insert into p3 values (3)")
        assert [row[0] for row in connection.execute("select id from p3 order by id")] == [1, 3]
        try:
            connection.execute("select 1 / 0")
        except psycopg.errors.DivisionByZero:
            pass
        try:
            connection.execute("select 1")
            raise AssertionError("a failed transaction went on")
        except psycopg.errors.InFailedSqlTransaction:
            connection.rollback()
        connection.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        assert connection.execute("show transaction_isolation").fetchone() == ("serializable",)
        connection.rollback()
        connection.isolation_level = None
        connection.execute("drop table p3")


def pipelines():
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("create table p3 (id int primary key)")
        with connection.pipeline() as pipeline:
            cursors = [connection.execute("insert into p3 values (%s) returning id", (n,)) for n in range(50)]
            pipeline.sync()
            assert [cursor.fetchone()[0] for cursor in cursors] == list(range(50))
            read = connection.execute("select count(*) from p3")
            assert read.fetchone() == (50,)
        # What follows an error up to the next sync is not run, and what was before it in the same group is undone.
        try:
            with connection.pipeline():
                connection.execute("insert into p3 values (100)")
                connection.execute("insert into p3 values (1)")
                connection.execute("insert into p3 values (101)")
            raise AssertionError("a duplicate was taken")
        except psycopg.errors.UniqueViolation:
            pass
        assert connection.execute("select count(*) from p3").fetchone() == (50,)
        with connection.pipeline(), connection.transaction():
            connection.execute("insert into p3 values (200)")
            connection.execute("insert into p3 values (201)")
        with connection.cursor() as cursor:
            cursor.executemany("insert into p3 values (%s)", [(n,) for n in range(300, 400)])
        assert connection.execute("select count(*) from p3").fetchone() == (152,)
        connection.execute("drop table p3")


def copies():
    with psycopg.connect(url) as connection:
        connection.execute("create table p3 (id int, name text)")
        with connection.cursor() as cursor:
            with cursor.copy("copy p3 from stdin") as copy:
                for n in range(10_000):
                    copy.write_row((n, "x" * 100))
            assert cursor.rowcount == 10_000
            with cursor.copy("copy (select id from p3 order by id) to stdout (format binary)") as copy:
                copy.set_types(["int4"])
                assert [row[0] for row in copy.rows()] == list(range(10_000))
        connection.commit()
        try:
            with connection.cursor() as cursor, cursor.copy("copy p3 from stdin") as copy:
                copy.write("not a number\tx\n")
            raise AssertionError("a copy of nonsense succeeded")
        except psycopg.errors.InvalidTextRepresentation:
            connection.rollback()
        assert connection.execute("select count(*) from p3").fetchone() == (10_000,)
        connection.execute("drop table p3")


def cursors_at_the_server():
    with psycopg.connect(url) as connection:
        with connection.cursor(name="numbers") as cursor:
            cursor.execute("select n from generate_series(1, 1000) n")
            assert cursor.fetchmany(10) == [(n,) for n in range(1, 11)]
            assert len(cursor.fetchall()) == 990
        # One with hold outlives its transaction, and so does the connection that has it.
        with connection.cursor(name="held", withhold=True, scrollable=True) as cursor:
            cursor.execute("select n from generate_series(1, 1000) n")
            connection.commit()
            assert cursor.fetchone() == (1,)
            cursor.scroll(499)
            assert cursor.fetchone() == (501,)
        connection.commit()


def notifications():
    with psycopg.connect(url, autocommit=True) as listener, psycopg.connect(url, autocommit=True) as sender:
        listener.execute("listen news")
        for n in range(3):
            sender.execute("select pg_notify('news', %s)", (str(n),))
        heard = [notify.payload for notify in listener.notifies(timeout=10, stop_after=3)]
        assert heard == ["0", "1", "2"], heard
        listener.execute("unlisten *")


def state_of_a_session():
    with psycopg.connect(url, options="-c statement_timeout=4321ms", application_name="p3") as connection:
        assert connection.execute("show statement_timeout").fetchone() == ("4321ms",)
        connection.execute("set time zone 'Asia/Tokyo'")
        connection.commit()
        assert connection.execute("show time zone").fetchone() == ("Asia/Tokyo",)
        connection.execute("create temp table mine as select 1 as a")
        connection.commit()
        assert connection.execute("select a from mine").fetchone() == (1,)
        assert connection.execute(sql.SQL("show application_name")).fetchone() == ("p3",)


def cancelled():
    with psycopg.connect(url, autocommit=True) as connection:
        try:
            connection.execute("set statement_timeout = '50ms'")
            connection.execute("select pg_sleep(60)")
            raise AssertionError("it was not cancelled")
        except psycopg.errors.QueryCanceled:
            pass
        assert connection.execute("select 1").fetchone() == (1,)


def pooled():
    with ConnectionPool(url, min_size=2, max_size=4, check=ConnectionPool.check_connection) as pool:
        for n in range(20):
            with pool.connection() as connection:
                assert connection.execute("select %s::int", (n,)).fetchone() == (n,)


def asynchronous():
    async def ask(n):
        async with await psycopg.AsyncConnection.connect(url) as connection:
            cursor = await connection.execute("select %s::int, pg_sleep(0.01)", (n,))
            return (await cursor.fetchone())[0]

    async def all_of_them():
        return await asyncio.gather(*(ask(n) for n in range(30)))

    assert asyncio.run(all_of_them()) == list(range(30))


def write(acknowledge):
    with psycopg.connect(url, autocommit=True) as connection:
        while acknowledge(lambda n: connection.execute("insert into written values (%s)", (n,))):
            pass


run(
    sys.argv,
    [
        prepared_statements,
        transactions_and_savepoints,
        pipelines,
        copies,
        cursors_at_the_server,
        notifications,
        state_of_a_session,
        cancelled,
        pooled,
        asynchronous,
    ],
    write,
)
