// postgres.js: everything prepared and pipelined on few connections, transactions, cursors, COPY, notifications.

"use strict";

const assert = require("node:assert");
const { pipeline } = require("node:stream/promises");
const { Readable } = require("node:stream");
const postgres = require("postgres");
const { run, url } = require("./common.cjs");

async function connected(work, options = {}) {
  const sql = postgres(url, { max: 4, onnotice: () => {}, ...options });
  try {
    await work(sql);
  } finally {
    await sql.end({ timeout: 5 });
  }
}

async function aThousandAtOnce() {
  await connected(async (sql) => {
    await sql`create table j (id int primary key, name text, tags text[], data jsonb)`;
    await Promise.all(
      Array.from({ length: 300 }, (_, n) => sql`insert into j values (${n}, ${`name ${n}`}, ${["a", "b"]}, ${sql.json({ n })})`),
    );
    const found = await Promise.all(Array.from({ length: 1000 }, (_, n) => sql`select * from j where id = ${n % 300}`));
    found.forEach(([row], n) => assert.deepStrictEqual([row.id, row.tags, row.data.n], [n % 300, ["a", "b"], n % 300]));
    // One that fails in the middle of a pipeline harms none of its neighbours.
    const settled = await Promise.allSettled(
      Array.from({ length: 100 }, (_, n) => (n % 10 === 0 ? sql`insert into j (id) values (1)` : sql`select ${n}::int as n`)),
    );
    settled.forEach((one, n) => {
      if (n % 10 === 0) assert.strictEqual(one.reason.code, "23505");
      else assert.strictEqual(one.value[0].n, n);
    });
    await sql`drop table j`;
  });
}

async function transactions() {
  await connected(async (sql) => {
    await sql`create table j (id int primary key)`;
    await Promise.all(
      Array.from({ length: 20 }, (_, n) =>
        sql.begin(async (sql) => {
          await sql`insert into j values (${n})`;
          await assert.rejects(sql.savepoint((sql) => sql`insert into j values (${n})`), { code: "23505" });
          // Not waited for one by one: they go out together.
          await Promise.all([sql`insert into j values (${n + 100})`, sql`insert into j values (${n + 200})`]);
        }),
      ),
    );
    await assert.rejects(
      sql.begin(async (sql) => {
        await sql`insert into j values (1000)`;
        throw new Error("no");
      }),
      /no/,
    );
    assert.strictEqual((await sql`select count(*)::int as rows from j`)[0].rows, 60);
    // An array of statements is a pipeline within a transaction.
    const [[one], [two]] = await sql.begin((sql) => [sql`select 1 as a`, sql`select 2 as a`]);
    assert.deepStrictEqual([one.a, two.a], [1, 2]);
    await sql`drop table j`;
  });
}

async function aReservedConnection() {
  await connected(async (sql) => {
    const reserved = await sql.reserve();
    await reserved`create temp table mine as select 1 as a`;
    assert.strictEqual((await reserved`select a from mine`)[0].a, 1);
    reserved.release();
  });
}

async function cursors() {
  await connected(async (sql) => {
    let sum = 0;
    for await (const rows of sql`select n from generate_series(1, 1000) n`.cursor(100)) {
      sum += rows.reduce((sum, row) => sum + row.n, 0);
    }
    assert.strictEqual(sum, 500500);
    // Left in the middle.
    for await (const rows of sql`select n from generate_series(1, 1000) n`.cursor(10)) {
      assert.strictEqual(rows.length, 10);
      break;
    }
    assert.strictEqual((await sql`select 1 as a`)[0].a, 1);
    const described = await sql`select ${1}::int as a, 'x'::text as b`.describe();
    assert.deepStrictEqual(described.columns.map((column) => column.name), ["a", "b"]);
  });
}

async function copies() {
  await connected(async (sql) => {
    await sql`create table j (id int, name text)`;
    const lines = Readable.from((function* () {
      for (let n = 0; n < 10_000; n += 1) yield `${n}\tname\n`;
    })());
    await pipeline(lines, await sql`copy j from stdin`.writable());
    let text = "";
    for await (const chunk of await sql`copy (select id from j where id < 100 order by id) to stdout`.readable()) text += chunk;
    assert.deepStrictEqual(text.trim().split("\n").map(Number), Array.from({ length: 100 }, (_, n) => n));
    await sql`drop table j`;
  });
}

async function notifications() {
  await connected(async (sql) => {
    const heard = new Promise((resolve, reject) => {
      setTimeout(() => reject(new Error("nothing was heard")), 10_000).unref();
      sql.listen("news", resolve).then(() => sql.notify("news", "hello"), reject);
    });
    assert.strictEqual(await heard, "hello");
  });
}

async function cancelled() {
  await connected(async (sql) => {
    // A query is cancelled once, and one that arrives before the query does cancels nothing.
    const cancelledAfter = async (wait) => {
      const query = sql`select pg_sleep(10)`.execute();
      setTimeout(() => query.cancel(), wait);
      return query.then(() => false, (error) => error.code);
    };
    let code = false;
    for (let wait = 50; !code; wait *= 2) code = await cancelledAfter(wait);
    assert.strictEqual(code, "57014");
    assert.strictEqual((await sql`select 1 as a`)[0].a, 1);
  });
}

async function unprepared() {
  await connected(
    async (sql) => {
      const all = await Promise.all(Array.from({ length: 100 }, (_, n) => sql`select ${n}::int as n`));
      assert.deepStrictEqual(all.map(([row]) => row.n), Array.from({ length: 100 }, (_, n) => n));
      const several = await sql.unsafe("select 1 as a; select 2 as b").simple();
      assert.deepStrictEqual([several[0][0].a, several[1][0].b], [1, 2]);
    },
    { prepare: false },
  );
}

async function write(acknowledged) {
  const sql = postgres(url, { max: 2 });
  await acknowledged((n) => sql`insert into written values (${n})`);
}

run([aThousandAtOnce, transactions, aReservedConnection, cursors, copies, notifications, cancelled, unprepared], write);
