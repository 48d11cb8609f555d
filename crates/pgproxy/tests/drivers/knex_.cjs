// Knex: schemas, migrations under its lock, transactions, batches, streams.

"use strict";

const assert = require("node:assert");
const knex = require("knex");
const { run, url } = require("./common.cjs");

const connect = () => knex({ client: "pg", connection: url, pool: { min: 0, max: 5 } });

const migrations = {
  getMigrations: async () => ["1_shelf", "2_book"],
  getMigrationName: (name) => name,
  getMigration: async (name) =>
    ({
      "1_shelf": {
        up: (db) => db.schema.createTable("shelf", (table) => {
          table.increments();
          table.string("name").notNullable().unique();
        }),
        down: (db) => db.schema.dropTable("shelf"),
      },
      "2_book": {
        up: (db) => db.schema.createTable("book", (table) => {
          table.increments();
          table.integer("shelf_id").references("shelf.id");
          table.jsonb("data");
        }),
        down: (db) => db.schema.dropTable("book"),
      },
    })[name],
};

async function everything() {
  const db = connect();
  await db.migrate.latest({ migrationSource: migrations });
  await db.batchInsert("shelf", Array.from({ length: 100 }, (_, n) => ({ name: `shelf ${n}` })), 30);
  const shelves = await db("shelf").orderBy("id");
  await db("book").insert(shelves.map(({ id }) => ({ shelf_id: id, data: { id } })));
  const joined = await db("book").join("shelf", "shelf.id", "book.shelf_id").where("shelf.name", "shelf 7").first();
  assert.strictEqual(joined.data.id, shelves[7].id);
  await db("shelf").insert({ name: "shelf 7" }).onConflict("name").merge();
  await assert.rejects(db.transaction(async (transaction) => {
    await transaction("shelf").insert({ name: "never" });
    await transaction("shelf").insert({ name: "never" });
  }), { code: "23505" });
  await db.transaction(async (transaction) => {
    await transaction("shelf").insert({ name: "once" });
    await assert.rejects(transaction.transaction((nested) => nested("shelf").insert({ name: "once" })), { code: "23505" });
  });
  assert.strictEqual(Number((await db("shelf").count("* as rows"))[0].rows), 101);
  let rows = 0;
  for await (const _ of db("book").select().stream()) rows += 1;
  assert.strictEqual(rows, 100);
  await db.migrate.rollback({ migrationSource: migrations }, true);
  await db.destroy();
}

async function write(acknowledged) {
  const db = connect();
  await acknowledged((n) => db("written").insert({ n }));
}

run([everything], write);
