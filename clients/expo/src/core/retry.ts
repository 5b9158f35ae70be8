/** How long to wait before trying again, in milliseconds. */

export interface BackOff {
  readonly first: number;
  readonly longest: number;
}

export const FETCH_TOKEN: BackOff = { first: 1_000, longest: 600_000 };
export const CALL_API: BackOff = { first: 1_000, longest: 300_000 };

/** More than this nobody may ask for: a timer of more than 24.8 days goes off at once. */
export const LONGEST_FLOOR = 3_600_000;

/** `tries` counts from 1, `chance` lies in [0, 1), `floor` is the server's Retry-After. */
export function delay(backOff: BackOff, tries: number, chance: number, floor = 0): number {
  const full = Math.min(backOff.longest, backOff.first * 2 ** Math.min(tries - 1, 20));
  return Math.max(Math.min(floor, LONGEST_FLOOR), full * (1 - chance / 2));
}
