import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { type TestContext, test } from "node:test";

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

/**
 * As expo-sqlite is on a phone: each call on a thread of its own, and an exclusive transaction a connection of its own that
 * begins without a lock, and is refused one that another has.
 */
function onPhone(t: TestContext): () => Promise<Database> {
  const folder = mkdtempSync(join(tmpdir(), "fastbell-"));
  t.after(() => rmSync(folder, { recursive: true }));
  const connection = () => {
    const database = new DatabaseSync(join(folder, "log.db"));
    const { execAsync, runAsync, getFirstAsync, getAllAsync } = opened(database);
    const later = <P extends unknown[], R>(call: (...parameters: P) => Promise<R>) => {
      return async (...parameters: P): Promise<R> => {
        await new Promise(setImmediate);
        return call(...parameters);
      };
    };
    const statements = { execAsync: later(execAsync), runAsync: later(runAsync), getFirstAsync: later(getFirstAsync), getAllAsync: later(getAllAsync) };
    return { database, statements: statements as Omit<Database, "withExclusiveTransactionAsync"> };
  };
  return async () => ({
    ...connection().statements,
    async withExclusiveTransactionAsync(task) {
      const { database, statements } = connection();
      try {
        await statements.execAsync("BEGIN");
        await task(statements);
        await statements.execAsync("COMMIT");
      } catch (error) {
        await statements.execAsync("ROLLBACK");
        throw error;
      } finally {
        database.close();
      }
    },
  });
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

test("whatever is asked of the log at the same moment is done one after another: nothing is locked, and nothing comes after a reset", async (t) => {
  const store = new LogStore(onPhone(t));
  const page = Array.from({ length: 20 }, (_, place) => item(place + 1, "alice's"));

  const newest = await Promise.all([store.apply(page, 20), store.apply([item(21, "alice's")], 21), store.cursor(), store.read(1)]);
  const read = await Promise.all([store.apply([item(22, "alice's")], 22), store.read(1), store.reset(0)]);

  assert.deepEqual(newest, [undefined, undefined, 21, [item(21, "alice's")]]);
  assert.deepEqual(read, [undefined, [], undefined]); // it was to go already
  assert.deepEqual([await store.cursor(), await store.read(10)], [0, []]);
});

test("a log that is to be emptied is read no more, though the disk takes no write", async (t) => {
  const open = onPhone(t);
  let isFull = false;
  const store = new LogStore(async () => {
    const database = await open();
    return {
      ...database,
      withExclusiveTransactionAsync: (task) =>
        isFull ? Promise.reject(new Error("database or disk is full")) : database.withExclusiveTransactionAsync(task),
    };
  });
  await store.apply([item(1, "alice's")], 1);

  isFull = true;
  await assert.rejects(store.reset(0), /full/);
  assert.deepEqual(await store.read(10), []);
  isFull = false;
  await store.reset(0);
  await store.apply([item(1, "bob's")], 1);

  assert.deepEqual(await store.read(10), [item(1, "bob's")]);
});
