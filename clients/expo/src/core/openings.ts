/**
 * Taps on notifications: each once, however often the system tells of it, kept until the app can navigate, and told to
 * the backend until it has heard.
 */

import { ours } from "./answers.ts";
import { type Api, outcome } from "./api.ts";
import { pathOf } from "./links.ts";
import { tell } from "./observers.ts";
import type { Clock, Random, Vault } from "./ports.ts";
import { CALL_API, delay } from "./retry.ts";
import { Turns } from "./turns.ts";
import { Late, inTime, within } from "./within.ts";

export interface Opening {
  readonly taskId: string;
  readonly kind: "reminder" | "message" | "test";
  readonly url: string;
  /** The path in the app; "/" when the link is not one of the app's own. */
  readonly path: string;
  readonly at: Date;
}

interface Entry {
  readonly taskId: string;
  readonly since: number;
  readonly isTold: boolean;
}

interface Kept {
  readonly scheme: 1;
  readonly userId: string;
  readonly entries: readonly Entry[];
}

export interface OpeningEnds {
  readonly api: Api;
  readonly vault: Vault;
  readonly clock: Clock;
  readonly random: Random;
  /** What the app's links begin with: `fastbell://`, or an https address. */
  readonly links: readonly string[];
}

const MAX_ENTRIES = 50;
const NEVER_HEARD: readonly number[] = [404, 422]; // what else is refused may be heard later
const READS_AT_MOST = 5; // that may fail, before what is stored is lost
const VAULT_LIMIT = 1_000; // milliseconds that a tap waits for the vault
const TELL_FOR = 7 * 24 * 3_600_000; // milliseconds

export class Openings {
  readonly #ends: OpeningEnds;
  readonly #observers = new Set<(opening: Opening) => void>();
  #waiting: Opening[] = [];
  readonly #turns = new Turns();
  readonly #saves = new Turns();
  readonly #failures = new Map<string, number>(); // to tell, by push task
  #kept: Kept | null = null;
  #isRead = false;
  #reads = 0;
  #isTelling = false;
  #tries = 0;
  #cancel: () => void = () => undefined;
  #isClosed = false;

  constructor(ends: OpeningEnds) {
    this.#ends = ends;
  }

  /** Say whose openings these are; those of another person are dropped. Null: nobody is signed in. */
  belongTo(userId: string | null): Promise<void> {
    return this.#turns.take(async () => {
      await this.#read();
      if (userId === null || this.#kept?.userId !== userId) {
        this.#waiting = [];
        this.#kept = userId === null ? null : { scheme: 1, userId, entries: [] };
        await this.#save();
      }
    });
  }

  /** Take a tap, with the data of its push. The system may tell of one tap three times. */
  tapped(data: unknown): Promise<void> {
    return this.#turns.take(async () => {
      const opening = read(data, this.#ends);
      if (opening === null || this.#kept === null) {
        return;
      }
      await this.#read();
      const kept: Kept = this.#kept;
      if (kept.entries.some((entry) => entry.taskId === opening.taskId)) {
        return;
      }
      const entry: Entry = { taskId: opening.taskId, since: opening.at.getTime(), isTold: false };
      this.#kept = { ...kept, entries: [...kept.entries, entry].slice(-MAX_ENTRIES) };
      await this.#save();
      this.#waiting.push(opening);
      tell(this.#observers, opening);
      void this.tell();
    });
  }

  /** Take the oldest opening that the app has not followed yet. */
  take(): Opening | null {
    return this.#waiting.shift() ?? null;
  }

  /** The observer is called at once where something waits: it may have come before anybody listened. */
  subscribe(observer: (opening: Opening) => void): () => void {
    this.#observers.add(observer);
    const [oldest] = this.#waiting;
    if (oldest !== undefined) {
      tell([observer], oldest);
    }
    return () => this.#observers.delete(observer);
  }

  /** Tell the backend what it has not heard; what fails is told again, for seven days, and others meanwhile. */
  async tell(): Promise<void> {
    if (this.#isTelling) {
      return;
    }
    this.#isTelling = true;
    try {
      await this.#turns.take(() => (this.#kept === null ? undefined : this.#read()));
      for (;;) {
        const owner = this.#kept?.userId;
        const entry = this.#next();
        if (entry === undefined || this.#isClosed) {
          this.#tries = 0;
          return;
        }
        if (!(await this.#tellOne(entry))) {
          this.#failures.set(entry.taskId, this.#failuresOf(entry) + 1);
          this.#tries += 1;
          const wait = delay(CALL_API, this.#tries, this.#ends.random.chance());
          this.#cancel(); // of two that wait, one is enough
          this.#cancel = this.#isClosed ? () => undefined : this.#ends.clock.after(wait, () => void this.tell());
          return;
        }
        this.#failures.delete(entry.taskId);
        await this.#turns.take(async () => {
          if (this.#kept !== null && this.#kept.userId === owner) {
            const entries = this.#kept.entries.map((each) => (each.taskId === entry.taskId ? { ...each, isTold: true } : each));
            this.#kept = { ...this.#kept, entries };
            await this.#save();
          }
        });
      }
    } finally {
      this.#isTelling = false;
    }
  }

  /** Tell and write nothing more; resolves once what is being written is. */
  close(): Promise<void> {
    this.#isClosed = true;
    this.#cancel();
    return this.#saves.take(() => undefined);
  }

  /** Of those that the backend has not heard, the oldest that has failed least: none holds up the others. */
  #next(): Entry | undefined {
    const untold = this.#kept?.entries.filter((each) => !each.isTold) ?? [];
    const least = Math.min(...untold.map((each) => this.#failuresOf(each)));
    return untold.find((each) => this.#failuresOf(each) === least);
  }

  #failuresOf({ taskId }: Entry): number {
    return this.#failures.get(taskId) ?? 0;
  }

  /** True when there is nothing more to tell: told, unknown to the backend, no push task's id at all, or too old. */
  async #tellOne(entry: Entry): Promise<boolean> {
    if (this.#ends.clock.now() - entry.since > TELL_FOR) {
      return true;
    }
    const path = { task_id: entry.taskId };
    const call = this.#ends.api.client.POST("/v1/push-tasks/{task_id}/opened", { params: { path } });
    const told = await outcome(call, ours.nothing);
    return told.ok || (told.problem.is === "refused" && NEVER_HEARD.includes(told.problem.status));
  }

  /** What is stored joins what is known since. Until it can be read, nothing is written over it. */
  async #read(): Promise<void> {
    if (this.#isRead) {
      return;
    }
    let stored: Kept | null = null;
    try {
      stored = parsed(await inTime(this.#ends.clock, VAULT_LIMIT, this.#ends.vault.read()));
    } catch (error) {
      this.#reads += error instanceof Late ? 0 : 1;
      if (this.#reads < READS_AT_MOST) {
        return;
      }
    }
    this.#isRead = true;
    if (this.#kept === null) {
      this.#kept = stored;
      return;
    }
    const { userId, entries } = this.#kept;
    const earlier = stored?.userId === userId ? stored.entries : [];
    const known = new Set(entries.map(({ taskId }) => taskId));
    const all = [...earlier.filter(({ taskId }) => !known.has(taskId)), ...entries];
    this.#kept = { ...this.#kept, entries: all.slice(-MAX_ENTRIES) };
    await this.#save();
  }

  /** A vault that takes no write is given all of it with the next one; the person's tap does not wait for that. */
  async #save(): Promise<void> {
    const saved = this.#saves.take(() =>
      this.#isClosed || !this.#isRead ? undefined : this.#ends.vault.write(JSON.stringify(this.#kept)),
    );
    await within(this.#ends.clock, VAULT_LIMIT, saved);
  }
}

function read(data: unknown, ends: OpeningEnds): Opening | null {
  const { task_id: taskId, kind, url } = (typeof data === "object" && data !== null ? data : {}) as Record<string, unknown>;
  if (typeof taskId !== "string" || typeof url !== "string") {
    return null; // not one of ours
  }
  if (kind !== "reminder" && kind !== "message" && kind !== "test") {
    return null;
  }
  return { taskId, kind, url, path: pathOf(url, ends.links), at: new Date(ends.clock.now()) };
}

function parsed(text: string | null): Kept | null {
  try {
    const kept = text === null ? null : (JSON.parse(text) as Partial<Kept> | null);
    const isWhole = kept?.scheme === 1 && Array.isArray(kept.entries) && kept.entries.every(isEntry);
    return isWhole ? (kept as Kept) : null;
  } catch {
    return null;
  }
}

function isEntry(entry: Partial<Entry> | null): boolean {
  return typeof entry?.taskId === "string" && typeof entry.since === "number" && typeof entry.isTold === "boolean";
}
