/** What the registration machine knows, what happens to it, and what it asks for. */

export type Permission = "undetermined" | "granted" | "provisional" | "denied";

export interface DeviceToken {
  readonly provider: "apns" | "fcm";
  readonly token: string;
  readonly environment: "production" | "sandbox";
}

/** What the app says about the phone with each registration. */
export interface Facts {
  readonly permission: Permission;
  readonly locale: string | null;
  readonly timeZone: string | null;
  readonly appVersion: string | null;
  readonly osVersion: string | null;
  readonly publicKey: string | null;
}

/** A sign-out that the server may not have heard of. */
export interface Debt {
  readonly installationId: string;
  readonly ticket: string;
  readonly since: number;
  readonly isReplaced?: true; // nobody is registered by it, so that only a PUT which still hangs, or comes twice, would need it
}

export interface Person {
  readonly userId: string;
  readonly ticket: string;
  readonly mayBeKnown: boolean; // a PUT was begun, so the server may hold a registration
  readonly sequence: number; // of the last PUT with this ticket: of two the server keeps the one with the higher number
  readonly registered: string | null; // digest of the registration that the server answered 200 to
  readonly registeredAt: number | null;
  readonly doubted: Doubt | null;
}

/** A token that the server called dead. It is registered once more, for a provider may err; not twice. */
export interface Doubt {
  readonly token: string; // its digest
  readonly wasPutAgain: boolean; // and taken
}

/** What a person leaves on a phone: the log, lines and badge, the key for sealed texts, the system's own registration. */
export type Trace = "log" | "screen" | "key" | "token";

export const TRACES: readonly Trace[] = ["log", "screen", "key", "token"];

/** All that survives the process. Never a device token, never a bearer token. */
export interface Saved {
  readonly scheme: 1;
  readonly installationId: string;
  readonly person: Person | null;
  readonly owed: readonly Debt[];
  readonly toForget: readonly Trace[]; // of whoever was signed in before
}

export type Phase =
  | { readonly is: "signed_out" }
  | { readonly is: "waiting_for_token"; readonly since: number; readonly tries: number; readonly last: string | null }
  | { readonly is: "registering"; readonly tries: number; readonly last: string | null }
  | { readonly is: "registered" }
  | { readonly is: "refused"; readonly problem: Refusal; readonly appVersion: string | null };

/** Why the server will not take a registration until the app changes. */
export interface Refusal {
  readonly status: number;
  readonly type: string;
  readonly detail: string;
}

export interface State {
  readonly saved: Saved;
  readonly phase: Phase;
  readonly generation: number;
  readonly token: DeviceToken | null;
  readonly facts: Facts;
  readonly inFlight: Call | null;
  readonly payingTries: number;
}

/** The PUT that is under way, perhaps of a person who has signed out since. */
export interface Call {
  readonly generation: number;
  readonly digest: string;
  readonly formerTicket: string | null;
  readonly mayBeKnown: boolean; // an earlier one was begun, whose answer was none, or 200
}

/** What a PUT came to. */
export type PutOutcome =
  | { readonly is: "taken" } // 200
  | { readonly is: "lost"; readonly reason: string; readonly retryAfter: number } // no answer, 5xx, 429; milliseconds
  | { readonly is: "unauthorized" } // even with a new bearer token
  | { readonly is: "not_ours" } // 404, or 409 installation-taken: this installation id is somebody else's
  | { readonly is: "spent" } // 409 ticket-spent: the server was told that this sign-in is over
  | { readonly is: "outdated" } // 409 registration-outdated: the server has heard more of this sign-in than the phone remembers
  | { readonly is: "refused"; readonly problem: Refusal };

export type Event =
  | { readonly is: "signed_in"; readonly userId: string }
  | { readonly is: "signed_out" }
  | { readonly is: "token"; readonly token: DeviceToken }
  | { readonly is: "no_token"; readonly reason: string }
  | { readonly is: "opened" } // the app came to the front, the network came back, or a day has passed
  | { readonly is: "put_answered"; readonly generation: number; readonly digest: string; readonly outcome: PutOutcome }
  | { readonly is: "refresh_required" } // the server calls the token dead
  | { readonly is: "not_registered" } // the server knows no such installation of this person
  | { readonly is: "described"; readonly facts: Facts }
  | { readonly is: "forgotten"; readonly generation: number; readonly traces: readonly Trace[]; readonly facts: Facts | null } // tried, and so far came about
  | { readonly is: "paid"; readonly debt: Debt }
  | { readonly is: "not_paid"; readonly retryAfter: number }
  | { readonly is: "timer"; readonly timer: Timer };

export type Timer = "fetch" | "put" | "pay" | "forget";

/** The PUT's body, and the installation that it is for. */
export interface Registration {
  readonly userId: string; // whose bearer token it goes with
  readonly installationId: string;
  readonly token: DeviceToken;
  readonly facts: Facts;
  readonly signOutDigest: string;
  readonly sequence: number;
  readonly formerTicket: string | null;
}

export type Effect =
  | { readonly do: "fetch_token" }
  | { readonly do: "put"; readonly generation: number; readonly digest: string; readonly registration: Registration }
  | { readonly do: "pay"; readonly debt: Debt }
  | { readonly do: "wait"; readonly timer: Timer; readonly milliseconds: number }
  | { readonly do: "sync" }
  | { readonly do: "forget_person"; readonly generation: number; readonly traces: readonly Trace[] };

/** What a step may use that is not in the state: the time, chance, and new secrets. */
export interface Lent {
  readonly now: number; // milliseconds
  readonly chance: number; // [0, 1)
  readonly installationId: string;
  readonly ticket: string;
  digest(text: string): string; // SHA-256, hexadecimal
}
