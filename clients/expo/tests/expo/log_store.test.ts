import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { test } from "node:test";

import { type Database, ITEMS_AT_MOST, LogStore } from "../../src/core/log_store.ts";
import type { LogItem } from "../../src/core/sync.ts";

/** expo-sqlite's calls over Node's SQLite. */
function opened(database: DatabaseSync): Database {
  const statements: Omit<Database, "withExclusiveTransactionAsync"> = {
    execAsync: async (source) => database.exec(source),
    runAsync: async (source, parameters) => database.prepare(source).run(...parameters),
    getFirstAsync: async <T>(source: string, parameters: (string | number | null)[]) =>
      (database.prepare(source).get(...parameters) ?? null) as T | null,
    getAllAsync: async <T>(source: string, parameters: (string | number | null)[]) =>
      database.prepare(source).all(...parameters) as T[],
  };
  return {
    ...statements,
    async withExclusiveTransactionAsync(task) {
      database.exec("BEGIN EXCLUSIVE");
      try {
        await task(statements);
        database.exec("COMMIT");
      } catch (error) {
        database.exec("ROLLBACK");
        throw error;
      }
    },
  };
}

const item = (seq: number, body = `item ${seq}`) => ({ seq, body }) as unknown as LogItem;

test("items and cursor are stored together, once, and survive a new start", async () => {
  const database = new DatabaseSync(":memory:");
  const store = new LogStore(async () => opened(database));

  assert.equal(await store.cursor(), 0);
  await store.apply([item(1), item(2)], 2);
  await store.apply([item(2, "again"), item(3)], 3);
  const anew = new LogStore(async () => opened(database));

  assert.equal(await anew.cursor(), 3);
  assert.deepEqual(await anew.read(10), [item(3), item(2), item(1)]);
  assert.deepEqual(await anew.read(1, 3), [item(2)]);
});

test("a page that cannot be stored moves no cursor", async () => {
  const store = new LogStore(async () => opened(new DatabaseSync(":memory:")));
  await store.apply([item(1)], 1);

  await assert.rejects(store.apply([item(2), { seq: "no number" } as unknown as LogItem], 5));

  assert.equal(await store.cursor(), 1);
  assert.deepEqual(await store.read(10), [item(1)]);
});

test("a reset leaves nothing of another person", async () => {
  const store = new LogStore(async () => opened(new DatabaseSync(":memory:")));
  await store.apply([item(1)], 1);

  await store.reset(7);

  assert.equal(await store.cursor(), 7);
  assert.deepEqual(await store.read(10), []);
});

test("the log keeps its newest items and has an end", async () => {
  const store = new LogStore(async () => opened(new DatabaseSync(":memory:")));

  await store.apply(Array.from({ length: ITEMS_AT_MOST + 5 }, (_, place) => item(place + 1)), ITEMS_AT_MOST + 5);

  const kept = await store.read(ITEMS_AT_MOST + 5);
  assert.deepEqual([kept.length, kept.at(-1)?.seq], [ITEMS_AT_MOST, 6]);
});

test("a database that could not be opened is opened again", async () => {
  let tries = 0;
  const store = new LogStore(async () => {
    tries += 1;
    if (tries === 1) {
      throw new Error("disk full");
    }
    return opened(new DatabaseSync(":memory:"));
  });

  await assert.rejects(store.cursor(), /disk full/);
  assert.equal(await store.cursor(), 0);
});
