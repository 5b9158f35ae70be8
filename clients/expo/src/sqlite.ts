/** The log in SQLite: items and cursor in one transaction, so that the cursor never speaks of what was not stored. */

import { openDatabaseAsync } from "expo-sqlite";

import type { SyncStore } from "./core/log.ts";
import { type Database, LogStore } from "./core/log_store.ts";

export type { LogStore } from "./core/log_store.ts";

const opened = new Map<string, LogStore>();

/** Open the log of this phone; `name` is a file in the app's own folder. The same file again is the same log: two would lock each other out. */
export function openLog(name = "fastbell.db"): LogStore & SyncStore {
  const log = opened.get(name) ?? new LogStore(() => openDatabaseAsync(name) as Promise<Database>);
  opened.set(name, log);
  return log;
}
