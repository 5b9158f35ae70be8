/** What a phone's system is asked may never be answered. */

import type { Clock } from "./ports.ts";

/** What was asked did not come to its end in time. It may still. */
export class Late extends Error {}

/** As `done`, which takes at most so many milliseconds, else rejects with `Late`. */
export async function inTime<T>(clock: Clock, milliseconds: number, done: Promise<T>): Promise<T> {
  let cancel: () => void = () => undefined;
  const late = new Promise<never>((_, reject) => {
    cancel = clock.after(milliseconds, () => reject(new Late(`no answer within ${milliseconds} ms`)));
  });
  return Promise.race([done, late]).finally(() => cancel());
}

/** Null for what fails, or takes longer than so many milliseconds. */
export async function within<T>(clock: Clock, milliseconds: number, done: Promise<T>): Promise<T | null> {
  return inTime(clock, milliseconds, done).catch(() => null);
}
