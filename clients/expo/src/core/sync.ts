/**
 * The person's log after a cursor. The cursor is the acknowledgement: a page is stored before the next one is asked for,
 * and the last, empty answer tells the server that everything arrived.
 */

import { type Answers, ours } from "./answers.ts";
import { type Api, outcome } from "./api.ts";
import type { Log, LogItem, Place } from "./log.ts";
import type { Clock } from "./ports.ts";
import type { Problem } from "./problems.ts";

export { type LogItem, MemoryStore, type SyncStore } from "./log.ts";

export interface SyncEnds {
  readonly api: Api;
  readonly log: Log;
  readonly clock: Clock;
  /** Null while nobody's registration has been taken. */
  installationId(): string | null;
  /** Items are stored that were not there before. */
  onItems(items: readonly LogItem[]): void;
  /** Items between the cursor and the log's start are gone: read conversations and fasts from the API. */
  onGap(): void;
  /** The server calls the device token dead. */
  onRefreshRequired(): void;
  /** 409 or 404: this installation is signed out, or somebody else's. */
  onNotRegistered(): void;
}

const PAGE = 100;
const STORE_LIMIT = 10_000; // milliseconds
const HANGS: Problem = { is: "not_stored", detail: "the store takes too long" };

interface Run {
  isAskedAgain: boolean;
  isHanging: boolean;
  readonly waiting: ((problem: Problem | null) => void)[];
}

export class Sync {
  readonly #ends: SyncEnds;
  #running: Run | null = null;

  constructor(ends: SyncEnds) {
    this.#ends = ends;
  }

  /**
   * Read up to the log's end. Any number of calls while one runs make one more run; gives the trouble it met. Never rejects,
   * and waits for no store that hangs: what it stores in the end is told all the same.
   */
  run(): Promise<Problem | null> {
    if (this.#running !== null) {
      this.#running.isAskedAgain = true;
    }
    const run = this.#running ?? this.#begun();
    if (run.isHanging) {
      return Promise.resolve(HANGS);
    }
    return new Promise((resolve) => run.waiting.push(resolve));
  }

  /** Wait for nothing that is under way: another person begins. It stores nothing more, for the log has been emptied. */
  abandon(): void {
    this.#running = null;
  }

  #begun(): Run {
    const run: Run = { isAskedAgain: false, isHanging: false, waiting: [] };
    this.#running = run;
    void this.#runs(run)
      .catch((error: unknown): Problem => ({ is: "not_stored", detail: error instanceof Error ? error.message : String(error) }))
      .then((problem) => {
        this.#running = this.#running === run ? null : this.#running;
        answer(run, problem);
      });
    return run;
  }

  async #runs(run: Run): Promise<Problem | null> {
    let problem: Problem | null;
    do {
      run.isAskedAgain = false;
      problem = await this.#run(run);
    } while (run.isAskedAgain && run === this.#running);
    return problem;
  }

  /** Wait for the store, without those who wait for the run where it takes too long. */
  #stored<T>(run: Run, storing: Promise<T>): Promise<T> {
    const cancel = this.#ends.clock.after(STORE_LIMIT, () => {
      run.isHanging = true;
      answer(run, HANGS);
    });
    return storing.finally(() => {
      cancel();
      run.isHanging = false;
    });
  }

  async #run(run: Run): Promise<Problem | null> {
    const { api, log } = this.#ends;
    for (;;) {
      const installation_id = this.#ends.installationId();
      if (installation_id === null) {
        return null;
      }
      const place = await this.#stored(run, log.place());
      if (!log.holds(place)) {
        return null;
      }
      const query = { installation_id, after: place.cursor, limit: PAGE };
      const page = await outcome(api.client.GET("/v1/sync", { params: { query } }), ours.page);
      if (!log.holds(place)) {
        return null;
      }
      if (!page.ok) {
        if (await this.#stored(run, this.#recovers(place, page.problem))) {
          continue;
        }
        return page.problem;
      }
      const { items, next_cursor, has_more } = page.value;
      if (!(await this.#stored(run, this.#takes(place, page.value))) || (items.length === 0 && !has_more)) {
        return null;
      }
      if (next_cursor <= place.cursor) {
        return { is: "unavailable", status: 200, retryAfter: 0 }; // it would give the same page for ever
      }
    }
  }

  /** False when the log has been emptied meanwhile. */
  async #takes(place: Place, { items, next_cursor, refresh_required }: Answers["page"]): Promise<boolean> {
    const found = await this.#ends.log.store(place, items, next_cursor);
    if (found === null) {
      return false;
    }
    if (found.length > 0) {
      this.#ends.onItems(found);
    }
    if (refresh_required) {
      this.#ends.onRefreshRequired();
    }
    return true;
  }

  /** Do what an answer says; true when reading can go on at once. */
  async #recovers(place: Place, problem: Problem): Promise<boolean> {
    if (problem.is !== "refused") {
      return false;
    }
    switch (problem.status) {
      case 410: // the log begins later
        if (!(await this.#ends.log.moveTo(place, problem.nextCursor ?? 0))) {
          return false;
        }
        this.#ends.onGap();
        return problem.nextCursor !== null;
      case 422: // the cursor is of another server or account
        return problem.field === "after" && place.cursor !== 0 && this.#ends.log.moveTo(place, 0);
      case 404:
      case 409:
        this.#ends.onNotRegistered();
        return false;
      default:
        return false;
    }
  }
}

function answer(run: Run, problem: Problem | null): void {
  run.waiting.splice(0).forEach((resolve) => resolve(problem));
}
