/** The log as it happens, while the app is in front: server-sent events, what has come stored before more is read. */

import { createParser } from "eventsource-parser";

import { ours } from "./answers.ts";
import type { Api } from "./api.ts";
import type { Log, LogItem } from "./log.ts";
import type { Clock, Random } from "./ports.ts";
import { retryAfterOf } from "./problems.ts";
import { type BackOff, delay } from "./retry.ts";

export interface StreamEnds {
  readonly api: Api;
  readonly baseUrl: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  installationId(): string | null;
  /** Items are stored that were not there before; they want to be acknowledged within five seconds. */
  onItems(items: readonly LogItem[]): void;
  /** The cursor or the installation is refused; sync knows what to do, and resolves when it did it. */
  onRefused(): Promise<unknown>;
}

const RECONNECT: BackOff = { first: 1_000, longest: 60_000 };
const SILENCE = 20_000; // milliseconds; the server sends a comment after five seconds
const STEADY = 60_000; // milliseconds after which a stream that ends starts its back-off afresh

export class Stream {
  readonly #ends: StreamEnds;
  #life: AbortController | null = null;

  constructor(ends: StreamEnds) {
    this.#ends = ends;
  }

  get isOpen(): boolean {
    return this.#life !== null;
  }

  /** Follow the log until `close`; more calls than one change nothing. */
  open(): void {
    if (this.#life === null) {
      this.#life = new AbortController();
      void this.#follow(this.#life.signal);
    }
  }

  /** End at once: presence ends with it, and pushes go on. */
  close(): void {
    this.#life?.abort();
    this.#life = null;
  }

  async #follow(life: AbortSignal): Promise<void> {
    let tries = 0;
    while (!life.aborted) {
      const began = this.#ends.clock.now();
      const retry = await this.#connect(life).catch(() => 0);
      tries = this.#ends.clock.now() - began >= STEADY ? 1 : tries + 1;
      await this.#wait(delay(RECONNECT, tries, this.#ends.random.chance(), retry), life);
    }
  }

  /** Read one connection to its end; gives how long the server wants to be left alone, in milliseconds. */
  async #connect(life: AbortSignal): Promise<number> {
    const installation = this.#ends.installationId();
    if (installation === null) {
      return 0;
    }
    const place = await this.#ends.log.place();
    if (life.aborted) {
      return 0;
    }
    const url = new URL(`${this.#ends.baseUrl.replace(/\/$/, "")}/v1/stream`); // the API may be below a path
    url.searchParams.set("installation_id", installation);
    url.searchParams.set("after", String(place.cursor));
    const connection = new AbortController();
    const end = () => connection.abort();
    life.addEventListener("abort", end);
    let wake = this.#ends.clock.after(SILENCE, end);
    try {
      const headers = { accept: "text/event-stream" };
      const response = await this.#ends.api.fetch(new Request(url, { headers, signal: connection.signal }));
      if (!response.ok || response.body === null) {
        if (response.status >= 400 && response.status < 500 && response.status !== 429) {
          await this.#ends.onRefused();
        }
        return retryAfterOf(response);
      }
      if (!response.headers.get("content-type")?.startsWith("text/event-stream")) {
        return 0; // a page of whatever stands in between
      }
      let retry = 0;
      const waiting: LogItem[] = [];
      const parser = createParser({
        onEvent: (event) => {
          if (event.event === "item") {
            const item: unknown = JSON.parse(event.data);
            if (!ours.item(item)) {
              throw new Error("this is no item of the log"); // and none after it may be stored
            }
            waiting.push(item as LogItem);
          }
        },
        onRetry: (milliseconds) => {
          retry = milliseconds;
        },
      });
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader(); // not every Hermes iterates streams
      for (let read = await reader.read(); !read.done; read = await reader.read()) {
        wake();
        wake = this.#ends.clock.after(SILENCE, end);
        parser.feed(read.value);
        const items = waiting.splice(0);
        const last = items.at(-1);
        const found = last === undefined ? [] : await this.#ends.log.store(place, items, last.seq);
        if (found !== null && found.length > 0) {
          this.#ends.onItems(found); // though the app has left the front meanwhile: nothing reads them again
        }
        if (found === null || life.aborted) {
          return 0; // the log was emptied, or goes on elsewhere
        }
      }
      return retry;
    } finally {
      wake();
      life.removeEventListener("abort", end);
      connection.abort();
    }
  }

  #wait(milliseconds: number, life: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const cancel = this.#ends.clock.after(milliseconds, resolve);
      life.addEventListener("abort", () => (cancel(), resolve()), { once: true });
    });
  }
}
