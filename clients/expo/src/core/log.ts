/**
 * A person's log on this phone, whoever writes to it: sync and the stream read it at the same time, and a sign-out empties
 * it at any moment. The store is called for one thing at a time, and takes nothing that was read before it was emptied.
 */

import type { components } from "./schema.d.ts";
import { Turns } from "./turns.ts";

export type LogItem = components["schemas"]["ItemOut"];

/** Where the log is kept. One call is made at a time; one that fails is made again later. */
export interface SyncStore {
  cursor(): Promise<number>;
  /** Store items and cursor in one transaction; an item whose `seq` is there already is not stored twice. */
  apply(items: readonly LogItem[], next: number): Promise<void>;
  /** Go on at a cursor without what lies before it: the server no longer has it, or another person begins. */
  reset(next: number): Promise<void>;
}

/** Where reading began. */
export interface Place {
  readonly cursor: number;
  readonly life: number; // of the log: what is read in one is not stored in the next
}

export class Log {
  readonly #store: SyncStore;
  readonly #turns = new Turns();
  #life = 0;
  #emptying: Promise<void> | null = null;

  constructor(store: SyncStore) {
    this.#store = store;
  }

  /** Where to go on reading. */
  place(): Promise<Place> {
    const life = this.#life; // as of the question: what is asked for a person who leaves meanwhile is not the next one's
    return this.#turns.take(async () => ({ cursor: await this.#store.cursor(), life }));
  }

  /** Whether the log has neither been emptied nor moved since. */
  holds(place: Place): boolean {
    return place.life === this.#life;
  }

  /** Store what was read from a place on. Gives what was not there yet; null when the place no longer holds. */
  store(place: Place, items: readonly LogItem[], next: number): Promise<readonly LogItem[] | null> {
    return this.#turns.take(async () => {
      const cursor = this.holds(place) ? await this.#store.cursor() : 0;
      if (!this.holds(place)) {
        return null;
      }
      const found = items.filter((item) => item.seq > cursor); // all up to the cursor was stored with it
      if (found.length > 0 || next > cursor) {
        await this.#store.apply(found, Math.max(next, cursor));
      }
      return this.holds(place) ? found : null;
    });
  }

  /** Go on at another cursor, without what is stored; false when the place no longer holds. */
  async moveTo(place: Place, cursor: number): Promise<boolean> {
    if (!this.holds(place)) {
      return false;
    }
    this.#life += 1;
    const life = this.#life;
    return this.#turns.take(async () => {
      if (life === this.#life) {
        await this.#store.reset(cursor);
      }
      return life === this.#life;
    });
  }

  /** Store nothing more of what was read so far; resolves once nothing is being stored. */
  abandon(): Promise<void> {
    this.#life += 1;
    return this.#turns.take(() => undefined);
  }

  /** Remove all of it, after what is being stored at this moment, which is the last of this person. */
  empty(): Promise<void> {
    this.#life += 1;
    this.#emptying ??= this.#turns
      .take(() => this.#store.reset(0))
      .finally(() => {
        this.#emptying = null;
      });
    return this.#emptying;
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
