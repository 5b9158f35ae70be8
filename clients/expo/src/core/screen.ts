/** The notification list, brought in line with the truth at each open: lines that are over go. */

import { pathOf } from "./links.ts";

/** A line's name, as the backend gives it: what remains of a line that Android showed without the app. */
const LINE = /^(fasting-session|conversation)\/([0-9a-f-]{36})$/;

export interface Shown {
  readonly identifier: string; // what the system takes a line back by
  readonly data: unknown;
}

export interface Truth {
  /** Fasts that are still going on. */
  readonly activeFasts: ReadonlySet<string>;
  /** Conversations with something that the person has not read; null where nobody knows. */
  readonly unread: ReadonlySet<string> | null;
}

/** Which lines to take back; one that is not ours, or that nobody can judge, stays. */
export function over(shown: readonly Shown[], truth: Truth, links: readonly string[]): string[] {
  return shown.filter((line) => isOver(line, truth, links)).map((line) => line.identifier);
}

function isOver(line: Shown, truth: Truth, links: readonly string[]): boolean {
  const { url } = (typeof line.data === "object" && line.data !== null ? line.data : {}) as Record<string, unknown>;
  const [, kind, id] = typeof url === "string" ? pathOf(url, links).split("/") : LINE.exec(line.identifier) ?? [];
  switch (kind) {
    case "fasting-sessions":
    case "fasting-session":
      return id !== undefined && !truth.activeFasts.has(id);
    case "conversations":
    case "conversation":
      return id !== undefined && truth.unread !== null && !truth.unread.has(id);
    default:
      return false;
  }
}
