/** What a phone's system is asked may never be answered. */

import type { Clock } from "./ports.ts";

/** Null for what fails, or takes longer than so many milliseconds. */
export async function within<T>(clock: Clock, milliseconds: number, done: Promise<T>): Promise<T | null> {
  let cancel: () => void = () => undefined;
  const late = new Promise<null>((resolve) => {
    cancel = clock.after(milliseconds, () => resolve(null));
  });
  const first = await Promise.race([done.catch(() => null), late]);
  cancel();
  return first;
}
