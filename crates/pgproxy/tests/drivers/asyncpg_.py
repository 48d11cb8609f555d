"""asyncpg: its statement cache as it is by default, types it asks the catalog for, cursors, COPY, its pool."""

import asyncio
import io
import sys

import asyncpg

from common import run, url


async def statements_that_are_cached():
    connection = await asyncpg.connect(url)
    await connection.execute("create table a (id int primary key, name text)")
    await connection.executemany("insert into a values ($1, $2)", [(n, f"name {n}") for n in range(100)])
    for n in range(100):
        assert await connection.fetchval("select name from a where id = $1", n) == f"name {n}"
    statement = await connection.prepare("select count(*) from a where id < $1")
    assert await statement.fetchval(10) == 10
    # What it has cached has another result now, which PostgreSQL says where it knows the old one. A node that does not know
    # it, because the statement was never there, answers by the new one.
    if sys.argv[2] == "one-node":
        await connection.execute("alter table a add column more int default 7")
        row = await connection.fetchrow("select * from a where id = $1", 5)
        assert tuple(row) == (5, "name 5", 7), row
        await connection.execute("alter table a drop column more")
        row = await connection.fetchrow("select * from a where id = $1", 5)
        assert tuple(row) == (5, "name 5"), row
    # More than its cache holds.
    for n in range(150):
        assert await connection.fetchval(f"select {n} + $1::int", 1) == n + 1
    await connection.execute("drop table a")
    await connection.close()


async def types_of_the_app():
    connection = await asyncpg.connect(url)
    await connection.execute(
        "create type mood as enum ('sad', 'happy'); create type point2 as (x int, y int);"
        "create domain positive as int check (value > 0)"
    )
    assert await connection.fetchval("select $1::mood", "happy") == "happy"
    assert tuple(await connection.fetchval("select $1::point2", (1, 2))) == (1, 2)
    assert await connection.fetchval("select array_agg(m) from unnest($1::mood[]) m", ["sad", "happy"]) == ["sad", "happy"]
    assert await connection.fetchval("select $1::positive", 3) == 3
    assert (await connection.fetchval("select int4range(1, 5)")).upper == 5
    await connection.execute("drop type mood, point2; drop domain positive")
    await connection.close()


async def transactions_and_cursors():
    connection = await asyncpg.connect(url)
    await connection.execute("create table a (id int primary key)")
    async with connection.transaction():
        await connection.execute("insert into a values (1)")
        try:
            async with connection.transaction():
                await connection.execute("insert into a values (2), (1)")
        except asyncpg.UniqueViolationError:
            pass
        await connection.execute("insert into a values (3)")
    assert [row["id"] for row in await connection.fetch("select id from a order by id")] == [1, 3]
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        numbers = [row[0] async for row in connection.cursor("select n from generate_series(1, 1000) n", prefetch=50)]
        assert numbers == list(range(1, 1001))
        cursor = await connection.cursor("select n from generate_series(1, $1::int) n", 100)
        await cursor.forward(10)
        assert (await cursor.fetchrow())[0] == 11
    await connection.execute("drop table a")
    await connection.close()


async def copies():
    connection = await asyncpg.connect(url)
    await connection.execute("create table a (id int, name text)")
    await connection.copy_records_to_table("a", records=[(n, "x" * 50) for n in range(10_000)])
    out = io.BytesIO()
    await connection.copy_from_query("select id from a where id < $1 order by id", 100, output=out)
    assert out.getvalue().split() == [str(n).encode() for n in range(100)]
    try:
        await connection.copy_to_table("a", source=io.BytesIO(b"nonsense\tx\n"))
        raise AssertionError("a copy of nonsense succeeded")
    except asyncpg.InvalidTextRepresentationError:
        pass
    assert await connection.fetchval("select count(*) from a") == 10_000
    await connection.execute("drop table a")
    await connection.close()


async def notifications():
    listener, sender = await asyncpg.connect(url), await asyncpg.connect(url)
    heard = asyncio.Queue()
    await listener.add_listener("news", lambda connection, pid, channel, payload: heard.put_nowait(payload))
    await sender.execute("select pg_notify('news', $1)", "hello")
    assert await asyncio.wait_for(heard.get(), 10) == "hello"
    await listener.close()
    await sender.close()


async def a_pool_and_timeouts():
    async with asyncpg.create_pool(url, min_size=2, max_size=10) as pool:
        async def ask(n):
            async with pool.acquire() as connection:
                await connection.execute("set search_path to public, pg_temp")
                return await connection.fetchval("select $1::int", n)

        assert await asyncio.gather(*(ask(n) for n in range(200))) == list(range(200))
        async with pool.acquire() as connection:
            # What was set by those before was reset by the pool.
            assert await connection.fetchval("show search_path") == '"$user", public'
            try:
                await connection.fetchval("select pg_sleep(60)", timeout=0.1)
                raise AssertionError("it was not cancelled")
            except asyncio.TimeoutError:
                pass
            assert await connection.fetchval("select 1") == 1


async def write(acknowledge):
    # The pool clears the session each time a connection is given back.
    async with asyncpg.create_pool(url, min_size=1, max_size=2) as pool:
        while await acknowledge.wait_for(lambda n: pool.execute("insert into written values ($1)", n)):
            pass


run(
    sys.argv,
    [
        statements_that_are_cached,
        types_of_the_app,
        transactions_and_cursors,
        copies,
        notifications,
        a_pool_and_timeouts,
    ],
    write,
)
