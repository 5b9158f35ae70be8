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
const TELL_FOR = 7 * 24 * 3_600_000; // milliseconds

export class Openings {
  readonly #ends: OpeningEnds;
  readonly #observers = new Set<(opening: Opening) => void>();
  #waiting: Opening[] = [];
  #kept: Kept | null = null;
  #turn: Promise<void> = Promise.resolve();
  #isTelling = false;
  #tries = 0;
  #cancel: () => void = () => undefined;
  #isClosed = false;

  constructor(ends: OpeningEnds) {
    this.#ends = ends;
  }

  /** Say whose openings these are; those of another person are dropped. Null: nobody is signed in. */
  belongTo(userId: string | null): Promise<void> {
    return this.#inTurn(async () => {
      const kept = this.#kept ?? parsed(await this.#ends.vault.read().catch(() => null));
      if (userId !== null && kept?.userId === userId) {
        this.#kept = kept;
      } else {
        this.#waiting = [];
        this.#kept = userId === null ? null : { scheme: 1, userId, entries: [] };
        await this.#save();
      }
    });
  }

  /** Take a tap, with the data of its push. The system may tell of one tap three times. */
  tapped(data: unknown): Promise<void> {
    return this.#inTurn(async () => {
      const opening = read(data, this.#ends);
      const kept = this.#kept;
      if (opening === null || kept === null || kept.entries.some((entry) => entry.taskId === opening.taskId)) {
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

  /** Tell the backend what it has not heard; what fails is told again, for seven days. */
  async tell(): Promise<void> {
    if (this.#isTelling) {
      return;
    }
    this.#isTelling = true;
    try {
      for (;;) {
        const owner = this.#kept?.userId;
        const entry = this.#kept?.entries.find((each) => !each.isTold);
        if (entry === undefined) {
          this.#tries = 0;
          return;
        }
        if (!(await this.#tellOne(entry))) {
          this.#tries += 1;
          const wait = delay(CALL_API, this.#tries, this.#ends.random.chance());
          this.#cancel(); // of two that wait, one is enough
          this.#cancel = this.#isClosed ? () => undefined : this.#ends.clock.after(wait, () => void this.tell());
          return;
        }
        await this.#inTurn(async () => {
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

  close(): void {
    this.#isClosed = true;
    this.#cancel();
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

  /** A vault that takes no write is given all of it with the next one; the person's tap does not wait for that. */
  async #save(): Promise<void> {
    await this.#ends.vault.write(JSON.stringify(this.#kept)).catch(() => undefined);
  }

  #inTurn(act: () => Promise<void>): Promise<void> {
    const turn = this.#turn.then(act);
    this.#turn = turn.catch(() => undefined);
    return turn;
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
