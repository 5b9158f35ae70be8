/**
 * The life of a device token, as a pure function: what is known and what happens in, what is known then and what is to
 * be done out. It has no clock, no storage and no network; `engine.ts` lends it those.
 *
 * Rules that hold in every state:
 * - What is `saved` is persisted before any effect that follows from it is begun.
 * - One PUT is under way at a time, whoever it is of: the server must not hear of alice after it has heard of bob. A
 *   newer wish waits for it, and replaces an older one that waits. So does the payment of what is owed for it.
 * - Answers carry the generation of the sign-in that they belong to; those of an earlier one only make room.
 * - A sign-out is settled on the phone at once. What the server has not heard of is a debt: an installation and its
 *   ticket, paid whenever there is a network.
 * - What a person leaves on the phone is owed, too: it stays in `toForget` until it is gone, and nobody's log is read while
 *   another's is there.
 */

import { CALL_API, FETCH_TOKEN, delay } from "./retry.ts";

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
  readonly isReplaced?: true; // a later registration was taken there, so that only a PUT which still hangs would need it
}

export interface Person {
  readonly userId: string;
  readonly ticket: string;
  readonly mayBeKnown: boolean; // a PUT was begun, so the server may hold a registration
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
}

/** What a PUT came to. */
export type PutOutcome =
  | { readonly is: "taken" } // 200
  | { readonly is: "lost"; readonly reason: string; readonly retryAfter: number } // no answer, 5xx, 429; milliseconds
  | { readonly is: "unauthorized" } // even with a new bearer token
  | { readonly is: "not_ours" } // 404, or 409 installation-taken: this installation id is somebody else's
  | { readonly is: "spent" } // 409 ticket-spent: the server was told that this sign-in is over
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

export type Step = readonly [State, readonly Effect[]];

export const MAX_DEBTS = 8;
export const REGISTRATION_AGE = 24 * 3_600_000; // milliseconds after which the server is told again that we live
export const REGISTER_AGAIN_AFTER = 60_000; // milliseconds
export const FORGET_AGAIN_AFTER = 60_000; // milliseconds; a disk that is full, say

/** Go on after a start of the app. */
export function restored(saved: Saved, facts: Facts, now: number): State {
  const phase: Phase = saved.person === null ? { is: "signed_out" } : waiting(now);
  return { saved, phase, generation: 0, token: null, facts, inFlight: null, payingTries: 0 };
}

/** The installation whose log may be read: its registration was taken, and nothing of another person's log is left. */
export function readable(saved: Saved): string | null {
  return saved.person?.registered == null || saved.toForget.includes("log") ? null : saved.installationId;
}

/** What to do about the traces that are left. */
export function forgetting({ saved, generation }: State): readonly Effect[] {
  return saved.toForget.length === 0 ? [] : [{ do: "forget_person", generation, traces: saved.toForget }];
}

export function step(state: State, event: Event, lent: Lent): Step {
  switch (event.is) {
    case "signed_in":
      return signedIn(state, event.userId, lent);
    case "signed_out":
      return signedOut(state, lent);
    case "token":
      return tokenArrived({ ...state, token: event.token }, lent);
    case "no_token":
      return noToken(state, event.reason, lent);
    case "opened":
      return opened(state, lent);
    case "put_answered":
      return putAnswered(state, event.generation, event.digest, event.outcome, lent);
    case "refresh_required":
      return refreshRequired(state, lent);
    case "not_registered":
      return notRegistered(state, lent);
    case "described":
      return described({ ...state, facts: event.facts }, lent);
    case "forgotten":
      return forgotten(state, event, lent);
    case "paid":
      return paid(state, event.debt);
    case "not_paid":
      return notPaid(state, event.retryAfter, lent);
    case "timer":
      return timer(state, event.timer, lent);
  }
}

function signedIn(state: State, userId: string, lent: Lent): Step {
  const { person } = state.saved;
  if (person?.userId === userId) {
    return state.phase.is === "refused" ? asked(state, lent) : [state, []];
  }
  const [left, effects] = person === null ? ([state, []] as const) : signedOut(state, lent);
  const newcomer: Person = {
    userId,
    ticket: lent.ticket,
    mayBeKnown: false,
    registered: null,
    registeredAt: null,
    doubted: null,
  };
  const [next, more] = asked(withPerson(left, newcomer), lent);
  return [next, [...effects, ...more]];
}

function signedOut(state: State, lent: Lent): Step {
  const { person, installationId } = state.saved;
  if (person === null) {
    return [state, []];
  }
  const debt: Debt = { installationId, ticket: person.ticket, since: lent.now };
  const owed = person.mayBeKnown ? owedToo(state.saved.owed, debt) : state.saved.owed;
  const next: State = {
    ...state,
    saved: { ...state.saved, person: null, owed, toForget: TRACES },
    phase: { is: "signed_out" },
    generation: state.generation + 1,
    token: null, // the system's own registration is ended, too; another person's token comes anew
  };
  return [next, [...forgetting(next), ...payments(next)]];
}

function tokenArrived(state: State, lent: Lent): Step {
  const { person } = state.saved;
  if (person === null || state.token === null) {
    return [state, []];
  }
  const doubt = person.doubted;
  if (doubt === null || doubt.token !== tokenDigest(state.token, lent)) {
    return wished(doubt === null ? state : withPerson(state, { ...person, doubted: null }), lent);
  }
  if (doubt.wasPutAgain && person.registered === null) {
    return [{ ...state, phase: waiting(lent.now, "the system still gives the token that was refused") }, []];
  }
  return wished(state, lent);
}

/** Bring the server to what is known now, unless it knows. */
function wished(state: State, lent: Lent): Step {
  const { person } = state.saved;
  if (person === null || state.token === null) {
    return [state, []];
  }
  if (state.inFlight === null && person.registered === wish(state, person, lent)) {
    return [{ ...state, phase: { is: "registered" } }, []];
  }
  return put(state, person, lent);
}

function put(state: State, person: Person, lent: Lent): Step {
  const phase: Phase = state.phase.is === "registering" ? state.phase : { is: "registering", tries: 0, last: null };
  if (state.inFlight !== null || state.token === null) {
    return [{ ...state, phase }, []]; // its answer looks at the wish again
  }
  const digest = wish(state, person, lent);
  const { installationId, owed } = state.saved;
  const registration: Registration = {
    userId: person.userId,
    installationId,
    token: state.token,
    facts: state.facts,
    signOutDigest: lent.digest(person.ticket),
    formerTicket: owed.findLast((debt) => debt.installationId === installationId)?.ticket ?? null,
  };
  const inFlight: Call = { generation: state.generation, digest, formerTicket: registration.formerTicket };
  const next = { ...withPerson(state, { ...person, mayBeKnown: true }), phase, inFlight };
  return [next, [{ do: "put", generation: state.generation, digest, registration }]];
}

function putAnswered(state: State, generation: number, digest: string, outcome: PutOutcome, lent: Lent): Step {
  const { person } = state.saved;
  const settled: State = { ...state, inFlight: null };
  if (generation !== state.generation || person === null) {
    const [next, effects] =
      person !== null && state.phase.is === "registering" ? put(settled, person, lent) : ([settled, []] as const);
    return [next, [...payments(next), ...effects]];
  }
  switch (outcome.is) {
    case "taken": {
      const doubted = person.doubted === null ? null : { ...person.doubted, wasPutAgain: true };
      const taken: Person = { ...person, registered: digest, registeredAt: lent.now, doubted };
      const known = withPerson(unburdened(settled, state.inFlight?.formerTicket ?? null), taken);
      if (digest !== wish(known, person, lent)) {
        return put({ ...known, phase: { is: "registering", tries: 0, last: null } }, taken, lent);
      }
      return [{ ...known, phase: { is: "registered" } }, [{ do: "sync" }]];
    }
    case "lost": {
      const tries = (state.phase.is === "registering" ? state.phase.tries : 0) + 1;
      const wait = delay(CALL_API, tries, lent.chance, outcome.retryAfter);
      const phase: Phase = { is: "registering", tries, last: outcome.reason };
      return [{ ...settled, phase }, [{ do: "wait", timer: "put", milliseconds: wait }]];
    }
    case "unauthorized":
      return [{ ...settled, phase: { is: "registering", tries: 0, last: "unauthorized" } }, []]; // until the next open
    case "not_ours":
      return elsewhere(settled, person, lent);
    case "spent":
      return anew(settled, { ...person, ticket: lent.ticket, registered: null, registeredAt: null }, "ticket spent", lent);
    case "refused":
      return [{ ...settled, phase: { is: "refused", problem: outcome.problem, appVersion: state.facts.appVersion } }, []];
  }
}

/** This installation id is somebody else's: take a new one, and owe the sign-out of what we may have had under it. */
function elsewhere(state: State, person: Person, lent: Lent): Step {
  const { installationId, owed } = state.saved;
  const debt: Debt = { installationId, ticket: person.ticket, since: lent.now };
  const moved: Person = { ...person, ticket: lent.ticket, registered: null, registeredAt: null };
  const saved = {
    ...state.saved,
    installationId: lent.installationId,
    owed: person.registered === null ? owed : owedToo(owed, debt),
  };
  return anew({ ...state, saved }, moved, "installation taken", lent);
}

/** Register under another id, or with another ticket: at once, and where that does not help ever more slowly. */
function anew(state: State, person: Person, last: string, lent: Lent): Step {
  const tries = (state.phase.is === "registering" ? state.phase.tries : 0) + 1;
  const next: State = { ...withPerson(state, person), phase: { is: "registering", tries, last } };
  if (tries === 1) {
    return put(next, person, lent);
  }
  return [next, [{ do: "wait", timer: "put", milliseconds: delay(CALL_API, tries, lent.chance) }]];
}

function refreshRequired(state: State, lent: Lent): Step {
  const { person } = state.saved;
  if (person === null || state.phase.is !== "registered") {
    return doubtful(state);
  }
  const same = state.token !== null && person.doubted?.token === tokenDigest(state.token, lent);
  const doubted =
    same || state.token === null ? person.doubted : { token: tokenDigest(state.token, lent), wasPutAgain: false };
  return asked(withPerson(state, { ...person, registered: null, registeredAt: null, doubted }), lent);
}

/** The server does not hold what was registered, and the next registration is on its way or waits: it is made in any case. */
function doubtful(state: State): Step {
  const { person } = state.saved;
  return [person === null ? state : withPerson(state, { ...person, registered: null, registeredAt: null }), []];
}

/** Signed out elsewhere, or crowded out: the token is as good as before. At most once a minute, whatever the server says. */
function notRegistered(state: State, lent: Lent): Step {
  const { person } = state.saved;
  if (person === null || state.phase.is !== "registered") {
    return doubtful(state);
  }
  const unknown: Person = { ...person, registered: null, registeredAt: null };
  const next: State = { ...withPerson(state, unknown), phase: { is: "registering", tries: 0, last: "not registered" } };
  const rest = REGISTER_AGAIN_AFTER - (lent.now - (person.registeredAt ?? 0));
  return rest > 0 ? [next, [{ do: "wait", timer: "put", milliseconds: rest }]] : put(next, unknown, lent);
}

function described(state: State, lent: Lent): Step {
  const { person } = state.saved;
  const knows = state.phase.is === "registered" || state.phase.is === "registering";
  return person !== null && knows && state.token !== null ? wished(state, lent) : [state, []];
}

/** The key goes with its person, so what the phone says of itself is another by now. */
function forgotten(state: State, { generation, traces, facts }: Extract<Event, { is: "forgotten" }>, lent: Lent): Step {
  const { saved } = state;
  const toForget = generation === state.generation ? saved.toForget.filter((each) => !traces.includes(each)) : saved.toForget;
  const [next, effects] = described({ ...state, facts: facts ?? state.facts, saved: { ...saved, toForget } }, lent);
  const more: Effect[] = toForget.length === 0 ? [] : [{ do: "wait", timer: "forget", milliseconds: FORGET_AGAIN_AFTER }];
  if (next.phase.is === "registered" && readable(saved) === null && readable(next.saved) !== null) {
    more.push({ do: "sync" });
  }
  const isAsking = next.phase.is === "signed_out" || next.phase.is === "waiting_for_token";
  if (traces.includes("token") && !isAsking) {
    more.push({ do: "fetch_token" }); // it was the next person's by then
  }
  return [next, [...effects, ...more]];
}

function opened(state: State, lent: Lent): Step {
  const [next, effects] = looked(state, lent);
  return [next, [...forgetting(next), ...payments(next), ...effects]];
}

function looked(state: State, lent: Lent): Step {
  const { person } = state.saved;
  if (person === null) {
    return [state, []];
  }
  switch (state.phase.is) {
    case "signed_out":
      return [state, []];
    case "waiting_for_token":
      return [state, [{ do: "fetch_token" }]];
    case "registering":
      return put(state, person, lent);
    case "registered": {
      const isOld = lent.now - (person.registeredAt ?? 0) >= REGISTRATION_AGE;
      const [next, effects] = isOld ? put(state, person, lent) : ([state, []] as const);
      return [next, [{ do: "fetch_token" }, ...effects]];
    }
    case "refused":
      return state.phase.appVersion === state.facts.appVersion ? [state, []] : asked(state, lent);
  }
}

function asked(state: State, lent: Lent): Step {
  return [{ ...state, phase: waiting(lent.now) }, [{ do: "fetch_token" }]];
}

function noToken(state: State, reason: string, lent: Lent): Step {
  if (state.phase.is !== "waiting_for_token") {
    return [state, []];
  }
  const tries = state.phase.tries + 1;
  const phase: Phase = { ...state.phase, tries, last: reason };
  return [{ ...state, phase }, [{ do: "wait", timer: "fetch", milliseconds: delay(FETCH_TOKEN, tries, lent.chance) }]];
}

function paid(state: State, debt: Debt): Step {
  const owed = state.saved.owed.filter((each) => each.installationId !== debt.installationId || each.ticket !== debt.ticket);
  const next = { ...state, saved: { ...state.saved, owed }, payingTries: 0 };
  return [next, payments(next)];
}

function notPaid(state: State, retryAfter: number, lent: Lent): Step {
  const payingTries = state.payingTries + 1;
  const milliseconds = delay(CALL_API, payingTries, lent.chance, retryAfter);
  return [{ ...state, payingTries }, [{ do: "wait", timer: "pay", milliseconds }]];
}

function timer(state: State, which: Timer, lent: Lent): Step {
  const { person } = state.saved;
  switch (which) {
    case "pay":
      return [state, payments(state)];
    case "forget":
      return [state, forgetting(state)];
    case "fetch":
      return [state, state.phase.is === "waiting_for_token" ? [{ do: "fetch_token" }] : []];
    case "put":
      return person !== null && state.phase.is === "registering" ? put(state, person, lent) : [state, []];
  }
}

function payments(state: State): readonly Effect[] {
  const [oldest] = state.saved.owed;
  const isHeldUp = state.inFlight !== null && state.inFlight.generation !== state.generation;
  return oldest === undefined || isHeldUp ? [] : [{ do: "pay", debt: oldest }];
}

/**
 * One debt more. Of too many one goes that a later registration replaced, else the second oldest: the oldest is of a
 * registration that the server answered, the newest is the likeliest to be the one that it heard last.
 */
function owedToo(owed: readonly Debt[], debt: Debt): readonly Debt[] {
  const all = [...owed, debt];
  const replaced = all.findIndex(({ isReplaced }) => isReplaced);
  const dropped = replaced === -1 ? 1 : replaced;
  return all.length > MAX_DEBTS ? all.filter((_, place) => place !== dropped) : all;
}

/**
 * The server has taken a registration here, so whoever was signed in on this installation before is so no longer, and the
 * ticket that came with it is spent. The others are still paid: an earlier PUT may hang, and must not be taken after this.
 */
function unburdened(state: State, spent: string | null): State {
  const { installationId, owed } = state.saved;
  const left = owed.filter((debt) => debt.installationId !== installationId || debt.ticket !== spent);
  const replaced = left.map((debt) => (debt.installationId === installationId ? { ...debt, isReplaced: true as const } : debt));
  return { ...state, saved: { ...state.saved, owed: replaced } };
}

function waiting(since: number, last: string | null = null): Phase {
  return { is: "waiting_for_token", since, tries: 0, last };
}

function withPerson(state: State, person: Person): State {
  return { ...state, saved: { ...state.saved, person } };
}

/** What the server is to know, as one digest: the token itself is never stored. */
function wish(state: State, person: Person, lent: Lent): string {
  return lent.digest(JSON.stringify([state.saved.installationId, person.userId, person.ticket, state.token, state.facts]));
}

function tokenDigest(token: DeviceToken, lent: Lent): string {
  return lent.digest(JSON.stringify(token));
}
