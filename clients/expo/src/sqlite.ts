/** The log in SQLite: items and cursor in one transaction, so that the cursor never speaks of what was not stored. */

import { openDatabaseAsync } from "expo-sqlite";

import type { SyncStore } from "./core/sync.ts";
import { type Database, LogStore } from "./core/log_store.ts";

export type { LogStore } from "./core/log_store.ts";

/** Open the log of this phone; `name` is a file in the app's own folder. */
export function openLog(name = "fastbell.db"): LogStore & SyncStore {
  return new LogStore(() => openDatabaseAsync(name) as Promise<Database>);
}
