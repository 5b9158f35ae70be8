/** What a call came to when it did not come to what was asked, taken apart by what the caller can do about it. */

import type { components } from "./schema.d.ts";

export type Problem =
  | { readonly is: "offline"; readonly detail: string } // no answer: try again when there is a network
  | { readonly is: "unavailable"; readonly status: number; readonly retryAfter: number } // 5xx, 429, or no answer of Fastbell's; milliseconds
  | { readonly is: "not_stored"; readonly detail: string } // of a sync: the store failed, a full disk, say; the next trigger reads the same page
  | { readonly is: "unauthorized" } // nobody is signed in, or Fastbell itself refuses the bearer token, even a new one
  | {
      readonly is: "refused"; // by Fastbell itself: the same call again would be refused again
      readonly status: number;
      readonly type: string;
      readonly detail: string;
      readonly field: string | null;
      readonly nextCursor: number | null;
    };

export type Outcome<T> = { readonly ok: true; readonly value: T } | { readonly ok: false; readonly problem: Problem };

type Wire = components["schemas"]["Problem"];

const OURS = "urn:fastbell:problem:";

/**
 * Read an error answer. Only Fastbell knows that it holds no such thing or takes no such body: a 404, 403 or 401 of whatever
 * stands in between says that Fastbell was not reached.
 */
export function problemOf(response: Response, body: unknown): Problem {
  const said = (typeof body === "object" && body !== null ? body : {}) as Partial<Wire>;
  const type = String(said.type);
  if (!type.startsWith(OURS) || response.status === 429 || response.status >= 500) {
    return unavailable(response);
  }
  if (response.status === 401) {
    return { is: "unauthorized" };
  }
  return {
    is: "refused",
    status: response.status,
    type,
    detail: said.detail ?? response.statusText,
    field: said.field ?? null,
    nextCursor: said.next_cursor ?? null,
  };
}

/** Fastbell was not reached, or cannot serve at present. */
export function unavailable(response: Response): Problem {
  return { is: "unavailable", status: response.status, retryAfter: retryAfterOf(response) };
}

/** In milliseconds; 0 where none is told, or a date, which nobody's clock is trusted for. */
export function retryAfterOf(response: Response): number {
  const seconds = Number(response.headers.get("retry-after") ?? "0");
  return Number.isFinite(seconds) ? Math.max(0, seconds) * 1000 : 0;
}
