/** Time. Used for waiting only, never for the order of things. */

import type { Clock } from "../core/ports.ts";

export const clock: Clock = {
  now: () => Date.now(),
  after(milliseconds, call) {
    const timer = setTimeout(call, milliseconds);
    return () => clearTimeout(timer);
  },
};
