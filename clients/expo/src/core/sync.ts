/**
 * The person's log after a cursor. The cursor is the acknowledgement: a page is stored before the next one is asked for,
 * and the last, empty answer tells the server that everything arrived.
 */

import { type Api, outcome } from "./api.ts";
import type { Problem } from "./problems.ts";
import type { components } from "./schema.d.ts";

export type LogItem = components["schemas"]["ItemOut"];

/** Where the log is kept. */
export interface SyncStore {
  cursor(): Promise<number>;
  /** Store items and cursor in one transaction; an item whose `seq` is there already is not stored twice. */
  apply(items: readonly LogItem[], next: number): Promise<void>;
  /** Go on at a cursor without what lies before it: the server no longer has it, or another person begins. */
  reset(next: number): Promise<void>;
}

export interface SyncEnds {
  readonly api: Api;
  readonly store: SyncStore;
  /** Null while nobody's registration has been taken. */
  installationId(): string | null;
  /** Items are stored. */
  onItems(items: readonly LogItem[]): void;
  /** Items between the cursor and the log's start are gone: read conversations and fasts from the API. */
  onGap(): void;
  /** The server calls the device token dead. */
  onRefreshRequired(): void;
  /** 409 or 404: this installation is signed out, or somebody else's. */
  onNotRegistered(): void;
}

const PAGE = 100;

export class Sync {
  readonly #ends: SyncEnds;
  #running: Promise<Problem | null> | null = null;
  #again = false;
  #epoch = 0;

  constructor(ends: SyncEnds) {
    this.#ends = ends;
  }

  /** Read up to the log's end. Any number of calls while one runs make one more run; gives the trouble it met. */
  run(): Promise<Problem | null> {
    if (this.#running !== null) {
      this.#again = true;
      return this.#running;
    }
    this.#running = this.#runs().finally(() => {
      this.#running = null;
    });
    return this.#running;
  }

  /** Let whatever is under way store nothing more: another person begins. */
  abandon(): void {
    this.#epoch += 1;
  }

  async #runs(): Promise<Problem | null> {
    let problem: Problem | null;
    do {
      this.#again = false;
      problem = await this.#run(this.#epoch);
    } while (this.#again);
    return problem;
  }

  async #run(epoch: number): Promise<Problem | null> {
    const { api, store } = this.#ends;
    for (;;) {
      const installation_id = this.#ends.installationId();
      if (installation_id === null) {
        return null;
      }
      const after = await store.cursor();
      const page = await outcome(api.client.GET("/v1/sync", { params: { query: { installation_id, after, limit: PAGE } } }));
      if (epoch !== this.#epoch) {
        return null;
      }
      if (!page.ok) {
        if (await this.#recovers(page.problem)) {
          continue;
        }
        return page.problem;
      }
      const { items, next_cursor, has_more, refresh_required } = page.value;
      if (items.length > 0 || next_cursor !== after) {
        await store.apply(items, next_cursor);
        this.#ends.onItems(items);
      }
      if (refresh_required) {
        this.#ends.onRefreshRequired();
      }
      if (items.length === 0 && !has_more) {
        return null;
      }
    }
  }

  /** Do what an answer says; true when reading can go on at once. */
  async #recovers(problem: Problem): Promise<boolean> {
    if (problem.is !== "refused") {
      return false;
    }
    switch (problem.status) {
      case 410: // the log begins later
        await this.#ends.store.reset(problem.nextCursor ?? 0);
        this.#ends.onGap();
        return problem.nextCursor !== null;
      case 422: // the cursor is of another server or account
        if (problem.field !== "after" || (await this.#ends.store.cursor()) === 0) {
          return false;
        }
        await this.#ends.store.reset(0);
        return true;
      case 404:
      case 409:
        this.#ends.onNotRegistered();
        return false;
      default:
        return false;
    }
  }
}

/** Keeps nothing: each start of the app reads the log from its start. For tests, and apps that keep no messages. */
export class MemoryStore implements SyncStore {
  readonly items = new Map<number, LogItem>();
  #cursor = 0;

  async cursor(): Promise<number> {
    return this.#cursor;
  }

  async apply(items: readonly LogItem[], next: number): Promise<void> {
    for (const item of items) {
      this.items.set(item.seq, item);
    }
    this.#cursor = next;
  }

  async reset(next: number): Promise<void> {
    this.items.clear();
    this.#cursor = next;
  }
}
