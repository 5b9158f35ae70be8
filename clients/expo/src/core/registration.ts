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

import {
  type Call,
  type Debt,
  type Effect,
  type Event,
  type Facts,
  type Lent,
  type Person,
  type Phase,
  type PutOutcome,
  type DeviceToken,
  type Registration,
  type Saved,
  type State,
  TRACES,
  type Timer,
} from "./registration_state.ts";
import { CALL_API, FETCH_TOKEN, delay } from "./retry.ts";

export * from "./registration_state.ts";

export type Step = readonly [State, readonly Effect[]];

export const MAX_DEBTS = 8;
const UNAUTHORIZED = "unauthorized";
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
      return described(state, event.facts, lent);
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
    return signedInAgain(state, person, lent);
  }
  const [left, effects] = person === null ? ([state, []] as const) : signedOut(state, lent);
  const newcomer: Person = {
    userId,
    ticket: lent.ticket,
    mayBeKnown: false,
    sequence: 0,
    registered: null,
    registeredAt: null,
    doubted: null,
  };
  const [next, more] = asked(withPerson(left, newcomer), lent);
  return [next, [...effects, ...more]];
}

/** What only another bearer token, or another app, could cure is tried again: the app has just renewed its sign-in. */
function signedInAgain(state: State, person: Person, lent: Lent): Step {
  if (state.phase.is === "refused") {
    return asked(state, lent);
  }
  return state.phase.is === "registering" && state.phase.last === UNAUTHORIZED ? put(state, person, lent) : [state, []];
}

function signedOut(state: State, lent: Lent): Step {
  const { person } = state.saved;
  if (person === null) {
    return [state, []];
  }
  const { saved } = person.mayBeKnown ? owing(state, person, lent) : state;
  const next: State = {
    ...state,
    saved: { ...saved, person: null, toForget: TRACES },
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
  const sequence = person.sequence + 1;
  const registration: Registration = {
    userId: person.userId,
    installationId,
    token: state.token,
    facts: state.facts,
    signOutDigest: lent.digest(person.ticket),
    sequence,
    formerTicket: owed.filter((debt) => debt.installationId === installationId).at(-1)?.ticket ?? null,
  };
  const { formerTicket } = registration;
  const inFlight: Call = { generation: state.generation, digest, formerTicket, mayBeKnown: person.mayBeKnown };
  const next = { ...withPerson(state, { ...person, mayBeKnown: true, sequence }), phase, inFlight };
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
      return [{ ...settled, phase: { is: "registering", tries: 0, last: UNAUTHORIZED } }, []]; // until the next open or sign-in
    case "not_ours":
      return elsewhere(settled, person, state.inFlight?.mayBeKnown ?? true, lent);
    case "spent":
      return anew(settled, person, "ticket spent", lent);
    case "outdated":
      return anew(owing(settled, person, lent), person, "registration outdated", lent); // its ticket is not spent yet
    case "refused":
      return [{ ...settled, phase: { is: "refused", problem: outcome.problem, appVersion: state.facts.appVersion } }, []];
  }
}

/**
 * This installation id is somebody else's: take a new one, and owe the sign-out of what we may have had under it. Where that is
 * nothing, too: what was refused may come a second time, once they have left.
 */
function elsewhere(state: State, person: Person, mayBeKnown: boolean, lent: Lent): Step {
  const { saved } = owing(state, person, lent, mayBeKnown ? {} : { isReplaced: true });
  const moved: State = { ...state, saved: { ...saved, installationId: lent.installationId } };
  return anew(moved, { ...person, mayBeKnown: false }, "installation taken", lent);
}

/** Register with another ticket, perhaps under another id: at once, and where that does not help ever more slowly. */
function anew(state: State, person: Person, last: string, lent: Lent): Step {
  const tries = (state.phase.is === "registering" ? state.phase.tries : 0) + 1;
  const newcomer: Person = { ...person, ticket: lent.ticket, sequence: 0, registered: null, registeredAt: null };
  const next: State = { ...withPerson(state, newcomer), phase: { is: "registering", tries, last } };
  if (tries === 1) {
    return put(next, newcomer, lent);
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
  const rest = REGISTER_AGAIN_AFTER - age(person, lent);
  return rest > 0 ? [next, [{ do: "wait", timer: "put", milliseconds: rest }]] : put(next, unknown, lent);
}

function described(before: State, facts: Facts, lent: Lent): Step {
  const state: State = { ...before, facts };
  switch (state.phase.is) {
    case "signed_out":
    case "waiting_for_token":
      return [state, []];
    case "registering":
    case "registered":
      return wished(state, lent);
    case "refused": // what was refused is another registration by now, if any of it is
      return JSON.stringify(facts) === JSON.stringify(before.facts) ? [state, []] : asked(state, lent);
  }
}

/** The key goes with its person, so what the phone says of itself is another by now. */
function forgotten(state: State, { generation, traces, facts }: Extract<Event, { is: "forgotten" }>, lent: Lent): Step {
  const { saved } = state;
  const toForget = generation === state.generation ? saved.toForget.filter((each) => !traces.includes(each)) : saved.toForget;
  const [next, effects] = described({ ...state, saved: { ...saved, toForget } }, facts ?? state.facts, lent);
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
      const [next, effects] = age(person, lent) >= REGISTRATION_AGE ? put(state, person, lent) : ([state, []] as const);
      return [next, [{ do: "fetch_token" }, ...effects]];
    }
    case "refused":
      return state.phase.appVersion === state.facts.appVersion ? [state, []] : asked(state, lent);
  }
}

/** Milliseconds since the registration was taken. A clock that was set back since tells nothing: it is as old as can be. */
function age({ registeredAt }: Person, { now }: Lent): number {
  return registeredAt === null || registeredAt > now ? Infinity : now - registeredAt;
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
 * One debt more: this person's sign-out. Of too many one goes that a later registration replaced, else the second oldest: the
 * oldest is of a registration that the server answered, the newest is the likeliest to be the one that it heard last.
 */
function owing(state: State, person: Person, lent: Lent, more: Pick<Debt, "isReplaced"> = {}): State {
  const { installationId, owed } = state.saved;
  const all: Debt[] = [...owed, { installationId, ticket: person.ticket, since: lent.now, ...more }];
  const replaced = all.findIndex(({ isReplaced }) => isReplaced);
  const dropped = replaced === -1 ? 1 : replaced;
  const left = all.length > MAX_DEBTS ? all.filter((_, place) => place !== dropped) : all;
  return { ...state, saved: { ...state.saved, owed: left } };
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
