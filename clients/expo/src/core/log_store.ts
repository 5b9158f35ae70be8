/** The log in an SQL database. */

import type { LogItem, SyncStore } from "./log.ts";
import { Turns } from "./turns.ts";

type Value = string | number | null;

interface Statements {
  execAsync(source: string): Promise<unknown>;
  runAsync(source: string, parameters: Value[]): Promise<unknown>;
  getFirstAsync<T>(source: string, parameters: Value[]): Promise<T | null>;
  getAllAsync<T>(source: string, parameters: Value[]): Promise<T[]>;
}

/**
 * What is used of expo-sqlite. An exclusive transaction is another connection, without patience: whatever touches the file
 * at the same moment fails with "database is locked", or lets the transaction fail.
 */
export interface Database extends Statements {
  withExclusiveTransactionAsync(task: (transaction: Statements) => Promise<void>): Promise<void>;
}

export const ITEMS_AT_MOST = 10_000; // the newest; older ones the app reads from the API

const SCHEMA = `
CREATE TABLE IF NOT EXISTS fastbell_items (seq INTEGER PRIMARY KEY, item TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS fastbell_cursor (one INTEGER PRIMARY KEY CHECK (one = 1), cursor INTEGER NOT NULL);
`;

/** One call at a time, the app's own reading included. */
export class LogStore implements SyncStore {
  readonly #open: () => Promise<Database>;
  readonly #turns = new Turns();
  #opened: Promise<Database> | null = null;
  #isToGo = false; // what is stored, though the database has not taken that yet

  constructor(open: () => Promise<Database>) {
    this.#open = open;
  }

  cursor(): Promise<number> {
    return this.#turns.take(async () => {
      const row = await (await this.#database()).getFirstAsync<{ cursor: number }>("SELECT cursor FROM fastbell_cursor", []);
      return row?.cursor ?? 0;
    });
  }

  apply(items: readonly LogItem[], next: number): Promise<void> {
    return this.#inTransaction(async (transaction) => {
      for (const item of items) {
        const row = [item.seq, JSON.stringify(item)];
        await transaction.runAsync("INSERT INTO fastbell_items (seq, item) VALUES (?, ?) ON CONFLICT (seq) DO NOTHING", row);
      }
      await transaction.runAsync(
        "DELETE FROM fastbell_items WHERE seq <= (SELECT seq FROM fastbell_items ORDER BY seq DESC LIMIT 1 OFFSET ?)",
        [ITEMS_AT_MOST],
      );
      await moveTo(transaction, next);
    });
  }

  async reset(next: number): Promise<void> {
    this.#isToGo = true;
    await this.#inTransaction(async (transaction) => {
      await transaction.runAsync("DELETE FROM fastbell_items", []);
      await moveTo(transaction, next);
    });
    this.#isToGo = false;
  }

  /** The newest items before a place in the log, newest first. Nothing of a log that is to be removed. */
  read(limit: number, before: number = Number.MAX_SAFE_INTEGER): Promise<LogItem[]> {
    return this.#turns.take(async () => {
      const rows = await (await this.#database()).getAllAsync<{ item: string }>(
        "SELECT item FROM fastbell_items WHERE seq < ? ORDER BY seq DESC LIMIT ?",
        [before, limit],
      );
      return this.#isToGo ? [] : rows.map(({ item }) => JSON.parse(item) as LogItem);
    });
  }

  #inTransaction(task: (transaction: Statements) => Promise<void>): Promise<void> {
    return this.#turns.take(async () => (await this.#database()).withExclusiveTransactionAsync(task));
  }

  #database(): Promise<Database> {
    this.#opened ??= this.#made().catch((error: unknown) => {
      this.#opened = null; // a full disk may pass
      throw error;
    });
    return this.#opened;
  }

  async #made(): Promise<Database> {
    const database = await this.#open();
    await database.execAsync(SCHEMA);
    return database;
  }
}

async function moveTo(transaction: Statements, cursor: number): Promise<void> {
  await transaction.runAsync(
    "INSERT INTO fastbell_cursor (one, cursor) VALUES (1, ?) ON CONFLICT (one) DO UPDATE SET cursor = excluded.cursor",
    [cursor],
  );
}
