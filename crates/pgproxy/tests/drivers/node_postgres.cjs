// node-postgres: its pool, named statements, cursors, streams, COPY, notifications.

"use strict";

const assert = require("node:assert");
const { pipeline } = require("node:stream/promises");
const { Readable, Writable } = require("node:stream");
const { once } = require("node:events");
const { Client, Pool } = require("pg");
const Cursor = require("pg-cursor");
const QueryStream = require("pg-query-stream");
const copy = require("pg-copy-streams");
const { run, url } = require("./common.cjs");

async function connected(work) {
  const client = new Client({ connectionString: url });
  await client.connect();
  try {
    await work(client);
  } finally {
    await client.end();
  }
}

async function namedStatements() {
  const pool = new Pool({ connectionString: url, max: 10 });
  await pool.query("create table n (id int primary key, name text, data jsonb, at timestamptz default now())");
  const insert = (n) => ({
    name: "insert",
    text: "insert into n (id, name, data) values ($1, $2, $3)",
    values: [n, `name ${n}`, { n }],
  });
  await Promise.all(Array.from({ length: 200 }, (_, n) => pool.query(insert(n))));
  const find = (n) => ({ name: "find", text: "select * from n where id = $1", values: [n] });
  const found = await Promise.all(Array.from({ length: 500 }, (_, n) => pool.query(find(n % 200))));
  found.forEach(({ rows }, n) => assert.deepStrictEqual([rows[0].id, rows[0].data.n], [n % 200, n % 200]));
  assert.ok(found[0].rows[0].at instanceof Date);
  await assert.rejects(pool.query(insert(1)), { code: "23505" });
  await pool.query("drop table n");
  await pool.end();
}

async function transactions() {
  const pool = new Pool({ connectionString: url, max: 3 });
  await pool.query("create table n (id int primary key)");
  const transfer = async (n) => {
    const client = await pool.connect();
    try {
      await client.query("BEGIN");
      await client.query("insert into n values ($1)", [n]);
      await client.query("savepoint one");
      await assert.rejects(client.query("insert into n values ($1)", [n]), { code: "23505" });
      await client.query("rollback to savepoint one");
      await client.query("insert into n values ($1)", [n + 100]);
      await client.query(n % 2 === 0 ? "COMMIT" : "ROLLBACK");
    } finally {
      client.release();
    }
  };
  await Promise.all(Array.from({ length: 50 }, (_, n) => transfer(n)));
  const { rows } = await pool.query("select count(*)::int as rows from n");
  assert.strictEqual(rows[0].rows, 50);
  await pool.query("drop table n");
  await pool.end();
}

async function severalStatementsAtOnce() {
  await connected(async (client) => {
    const results = await client.query("select 1 as a; select 2 as b; create temp table t (a int); insert into t values (1), (2)");
    assert.deepStrictEqual(results.map((result) => result.command), ["SELECT", "SELECT", "CREATE", "INSERT"]);
    // It queues them itself, and sends the next when the one before is answered.
    const all = await Promise.all(Array.from({ length: 100 }, (_, n) => client.query("select $1::int as n", [n])));
    assert.deepStrictEqual(all.map(({ rows }) => rows[0].n), Array.from({ length: 100 }, (_, n) => n));
  });
}

async function cursorsAndStreams() {
  await connected(async (client) => {
    const cursor = client.query(new Cursor("select n from generate_series(1, $1::int) n", [1000]));
    assert.strictEqual((await cursor.read(10)).length, 10);
    assert.strictEqual((await cursor.read(10))[0].n, 11);
    await cursor.close();
    let sum = 0;
    for await (const row of client.query(new QueryStream("select n from generate_series(1, 1000) n", [], { batchSize: 50 }))) {
      sum += row.n;
    }
    assert.strictEqual(sum, 500500);
    assert.strictEqual((await client.query("select 1 as a")).rows[0].a, 1);
  });
}

async function copies() {
  await connected(async (client) => {
    await client.query("create table n (id int, name text)");
    const lines = Readable.from((function* () {
      for (let n = 0; n < 10_000; n += 1) yield `${n}\t${"x".repeat(50)}\n`;
    })());
    await pipeline(lines, client.query(copy.from("copy n from stdin")));
    let bytes = 0;
    const sink = new Writable({ write(chunk, _, done) { bytes += chunk.length; done(); } });
    await pipeline(client.query(copy.to("copy n to stdout")), sink);
    assert.strictEqual(bytes, 10_000 * 52 + Array.from({ length: 10_000 }, (_, n) => String(n).length).reduce((a, b) => a + b));
    await assert.rejects(pipeline(Readable.from(["nonsense\tx\n"]), client.query(copy.from("copy n from stdin"))), { code: "22P02" });
    const { rows } = await client.query("select count(*)::int as rows from n");
    assert.strictEqual(rows[0].rows, 10_000);
    await client.query("drop table n");
  });
}

async function notifications() {
  await connected(async (listener) => {
    await listener.query("listen news");
    const heard = once(listener, "notification", { signal: AbortSignal.timeout(10_000) });
    await connected((sender) => sender.query("select pg_notify('news', $1)", ["hello"]));
    const [{ payload }] = await heard;
    assert.strictEqual(payload, "hello");
  });
}

async function timeouts() {
  const client = new Client({ connectionString: url, statement_timeout: 50, application_name: "timeouts" });
  await client.connect();
  await assert.rejects(client.query("select pg_sleep(60)"), { code: "57014" });
  assert.strictEqual((await client.query("show application_name")).rows[0].application_name, "timeouts");
  await client.end();
}

async function write(acknowledged) {
  const pool = new Pool({ connectionString: url, max: 2 });
  await acknowledged((n) => pool.query("insert into written values ($1)", [n]));
}

run([namedStatements, transactions, severalStatementsAtOnce, cursorsAndStreams, copies, notifications, timeouts], write);
