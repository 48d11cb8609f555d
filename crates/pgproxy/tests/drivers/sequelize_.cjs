// Sequelize: models that it makes tables of, associations, managed transactions, upserts.

"use strict";

const assert = require("node:assert");
const { DataTypes, Sequelize, Transaction, UniqueConstraintError } = require("sequelize");
const { run, url } = require("./common.cjs");

const connect = () => new Sequelize(url, { dialect: "postgres", logging: false, pool: { max: 5 } });

async function everything() {
  const sequelize = connect();
  const Author = sequelize.define("author", {
    name: { type: DataTypes.STRING, unique: true },
    mood: DataTypes.ENUM("sad", "happy"),
    tags: DataTypes.ARRAY(DataTypes.STRING),
    data: DataTypes.JSONB,
  });
  const Book = sequelize.define("book", { title: DataTypes.STRING });
  Author.hasMany(Book);
  Book.belongsTo(Author);
  await sequelize.sync({ force: true });
  await Author.bulkCreate(Array.from({ length: 50 }, (_, n) => ({ name: `author ${n}`, mood: "happy", tags: ["a"], data: { n } })));
  const authors = await Author.findAll({ order: ["id"] });
  await Promise.all(authors.map((author) => author.createBook({ title: `by ${author.name}` })));
  const found = await Author.findOne({ where: { name: "author 7" }, include: Book });
  assert.deepStrictEqual([found.data.n, found.books[0].title], [7, "by author 7"]);
  await Author.upsert({ name: "author 7", mood: "sad" }, { conflictFields: ["name"] });
  assert.strictEqual((await found.reload()).mood, "sad");
  await assert.rejects(sequelize.transaction(async (transaction) => {
    await Author.create({ name: "never" }, { transaction });
    await Author.create({ name: "author 1" }, { transaction });
  }), UniqueConstraintError);
  await sequelize.transaction({ isolationLevel: Transaction.ISOLATION_LEVELS.SERIALIZABLE }, async (transaction) => {
    const locked = await Author.findOne({ where: { name: "author 1" }, lock: true, transaction });
    await locked.update({ name: "renamed" }, { transaction });
  });
  assert.strictEqual(await Author.count(), 50);
  await sequelize.drop({});
  await sequelize.close();
}

async function write(acknowledged) {
  const sequelize = connect();
  await acknowledged((n) => sequelize.query("insert into written values (?)", { replacements: [n] }));
}

run([everything], write);
