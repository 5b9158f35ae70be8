/** The machine's table: what each event does in each state, and in which order. Random lives are in registration.test.ts. */

import assert from "node:assert/strict";
import { test } from "node:test";

import {
  type Debt,
  type DeviceToken,
  type Effect,
  type Event,
  type Facts,
  type Lent,
  MAX_DEBTS,
  type Phase,
  REGISTER_AGAIN_AFTER,
  REGISTRATION_AGE,
  type State,
  TRACES,
  type Trace,
  FORGET_AGAIN_AFTER,
  readable,
  restored,
  step,
} from "../../src/core/registration.ts";

const NOW = 1_700_000_000_000;
const FACTS: Facts = { permission: "granted", locale: "de", timeZone: "UTC", appVersion: "1", osVersion: "18", publicKey: null };
const REFUSAL = { status: 422, type: "invalid", detail: "No." };
const OPENED: Event = { is: "opened" };
const REFRESH: Event = { is: "refresh_required" };
const OUT: Event = { is: "signed_out" };
const TAKEN = { is: "taken" } as const;
let secrets = 0;

function lent(more: Partial<Lent> = {}): Lent {
  secrets += 1;
  return { now: NOW, chance: 0, installationId: `id-${secrets}`, ticket: `ticket-${secrets}`, digest: (text) => `#${text}`, ...more };
}

const enters = (userId: string): Event => ({ is: "signed_in", userId });
const describes = (facts: Partial<Facts>): Event => ({ is: "described", facts: { ...FACTS, ...facts } });
const gives = (token: string): Event => ({ is: "token", token: tokenOf(token) });
const tokenOf = (token: string): DeviceToken => ({ provider: "apns", token, environment: "production" });
const debtOf = (ticket: string, installationId = "id-0"): Debt => ({ installationId, ticket, since: NOW });

/** Let events happen one after another; gives where they lead, and what the last one asks for. */
function after(start: State, ...events: Event[]): [State, readonly Effect[]] {
  let [state, effects]: [State, readonly Effect[]] = [start, []];
  for (const event of events) {
    [state, effects] = step(state, event, lent());
  }
  return [state, effects];
}

/** Answer the PUT that is under way. */
function answers(state: State, outcome: Extract<Event, { is: "put_answered" }>["outcome"], more: Partial<Lent> = {}): [State, readonly Effect[]] {
  const { generation, digest } = state.inFlight!;
  const [next, effects] = step(state, { is: "put_answered", generation, digest, outcome }, lent(more));
  return [next, effects];
}

const nobody = (owed: readonly Debt[] = []) => restored({ scheme: 1, installationId: "id-0", person: null, owed, toForget: [] }, FACTS, NOW);
const waiting = () => after(nobody(), enters("alice"))[0];
const registering = () => after(waiting(), gives("a"))[0];
const registered = () => answers(registering(), TAKEN)[0];
const refused = () => answers(registering(), { is: "refused", problem: REFUSAL })[0];
const unauthorized = () => answers(registering(), { is: "unauthorized" })[0];
const lost = (retryAfter = 0) => answers(registering(), { is: "lost", reason: "no network", retryAfter });

const phases = (...states: [State, readonly Effect[]][]) => states.map(([state]) => state.phase.is);
const done = (effects: readonly Effect[]) => effects.map((effect) => (effect.do === "wait" ? `wait ${effect.timer}` : effect.do));
const registration = ([, effects]: readonly [State, readonly Effect[]]) => {
  const [put] = effects.filter((effect) => effect.do === "put");
  return put?.registration;
};

test("what each event does in each state", () => {
  const table: [string, State, Event, Phase["is"], string[]][] = [
    ["nobody, sign-in", nobody(), enters("alice"), "waiting_for_token", ["fetch_token"]],
    ["nobody, token", nobody(), gives("a"), "signed_out", []],
    ["nobody, no token", nobody(), { is: "no_token", reason: "" }, "signed_out", []],
    ["nobody, open", nobody(), OPENED, "signed_out", []],
    ["nobody who owes, open", nobody([debtOf("t")]), OPENED, "signed_out", ["pay"]],
    ["nobody, refresh", nobody(), REFRESH, "signed_out", []],
    ["nobody, described", nobody(), describes({ locale: "en" }), "signed_out", []],
    ["nobody, sign-out", nobody(), OUT, "signed_out", []],
    ["waiting, same person", waiting(), enters("alice"), "waiting_for_token", []],
    ["waiting, other person", waiting(), enters("bob"), "waiting_for_token", ["forget_person", "fetch_token"]],
    ["waiting, token", waiting(), gives("a"), "registering", ["put"]],
    ["waiting, no token", waiting(), { is: "no_token", reason: "" }, "waiting_for_token", ["wait fetch"]],
    ["waiting, open", waiting(), OPENED, "waiting_for_token", ["fetch_token"]],
    ["waiting, its timer", waiting(), { is: "timer", timer: "fetch" }, "waiting_for_token", ["fetch_token"]],
    ["waiting, another's timer", waiting(), { is: "timer", timer: "put" }, "waiting_for_token", []],
    ["waiting, refresh", waiting(), REFRESH, "waiting_for_token", []],
    ["waiting, described", waiting(), describes({ locale: "en" }), "waiting_for_token", []],
    ["waiting, sign-out", waiting(), OUT, "signed_out", ["forget_person"]],
    ["registering, same person", registering(), enters("alice"), "registering", []],
    ["registering, other person", registering(), enters("bob"), "waiting_for_token", ["forget_person", "fetch_token"]],
    ["registering, same token", registering(), gives("a"), "registering", []],
    ["registering, other token", registering(), gives("b"), "registering", []],
    ["registering, no token", registering(), { is: "no_token", reason: "" }, "registering", []],
    ["registering, open", registering(), OPENED, "registering", []],
    ["lost, same person", lost()[0], enters("alice"), "registering", []],
    ["unauthorized, same person", unauthorized(), enters("alice"), "registering", ["put"]],
    ["unauthorized, other person", unauthorized(), enters("bob"), "waiting_for_token", ["forget_person", "pay", "fetch_token"]],
    ["unauthorized, open", unauthorized(), OPENED, "registering", ["put"]],
    ["lost, open", lost()[0], OPENED, "registering", ["put"]],
    ["lost, its timer", lost()[0], { is: "timer", timer: "put" }, "registering", ["put"]],
    ["lost, another's timer", lost()[0], { is: "timer", timer: "fetch" }, "registering", []],
    ["lost, described", lost()[0], describes({ locale: "en" }), "registering", ["put"]],
    ["registering, refresh", registering(), REFRESH, "registering", []],
    ["registering, sign-out", registering(), OUT, "signed_out", ["forget_person"]],
    ["lost, sign-out", lost()[0], OUT, "signed_out", ["forget_person", "pay"]],
    ["registered, same person", registered(), enters("alice"), "registered", []],
    ["registered, other person", registered(), enters("bob"), "waiting_for_token", ["forget_person", "pay", "fetch_token"]],
    ["registered, same token", registered(), gives("a"), "registered", []],
    ["registered, other token", registered(), gives("b"), "registering", ["put"]],
    ["registered, no token", registered(), { is: "no_token", reason: "" }, "registered", []],
    ["registered, open", registered(), OPENED, "registered", ["fetch_token"]],
    ["registered, refresh", registered(), REFRESH, "waiting_for_token", ["fetch_token"]],
    ["registered, same facts", registered(), describes({}), "registered", []],
    ["registered, other facts", registered(), describes({ permission: "denied" }), "registering", ["put"]],
    ["registered, a timer", registered(), { is: "timer", timer: "put" }, "registered", []],
    ["registered, sign-out", registered(), OUT, "signed_out", ["forget_person", "pay"]],
    ["refused, same person", refused(), enters("alice"), "waiting_for_token", ["fetch_token"]],
    ["refused, token", refused(), gives("b"), "registering", ["put"]],
    ["refused, open", refused(), OPENED, "refused", []],
    ["refused, its timer", refused(), { is: "timer", timer: "put" }, "refused", []],
    ["refused, refresh", refused(), REFRESH, "refused", []],
    ...(["permission", "locale", "timeZone", "appVersion", "osVersion", "publicKey"] as const).map(
      (fact): [string, State, Event, Phase["is"], string[]] => [
        `refused, another ${fact}`, refused(), describes({ [fact]: "denied" }), "waiting_for_token", ["fetch_token"],
      ],
    ),
    ["refused, same facts", refused(), describes({}), "refused", []],
    ["refused, sign-out", refused(), OUT, "signed_out", ["forget_person", "pay"]],
  ];
  for (const [name, state, event, phase, effects] of table) {
    const [next, asked] = step(state, event, lent());
    assert.deepEqual([next.phase.is, done(asked)], [phase, effects], name);
  }
});

test("what each answer to a registration does", () => {
  const [taken, more] = answers(registering(), TAKEN);
  assert.deepEqual([taken.phase.is, done(more), taken.inFlight], ["registered", ["sync"], null]);
  assert.equal(taken.saved.person?.registeredAt, NOW);

  const [again, waits] = lost(70_000);
  assert.deepEqual(again.phase, { is: "registering", tries: 1, last: "no network" });
  assert.deepEqual(waits, [{ do: "wait", timer: "put", milliseconds: 70_000 }]);
  const [third] = answers(after(again, OPENED)[0], { is: "lost", reason: "answered 503", retryAfter: 0 });
  assert.deepEqual(third.phase, { is: "registering", tries: 2, last: "answered 503" });

  const [unknown, none] = answers(registering(), { is: "unauthorized" });
  assert.deepEqual([unknown.phase, none], [{ is: "registering", tries: 0, last: "unauthorized" }, []]);

  assert.deepEqual(refused().phase, { is: "refused", problem: REFUSAL, appVersion: "1" });
  const newer = after(refused(), describes({ appVersion: "2" }), OPENED);
  assert.deepEqual([newer[0].phase.is, done(newer[1])], ["waiting_for_token", ["fetch_token"]]);
});

test("an installation that is somebody else's is left for a new one, at once and then ever more slowly", () => {
  const [moved, puts] = answers(after(registered(), gives("b"))[0], { is: "not_ours" });
  assert.notEqual(moved.saved.installationId, "id-0");
  assert.deepEqual([registration([moved, puts])?.installationId, registration([moved, puts])?.formerTicket], [moved.saved.installationId, null]);
  const before = registered().saved.person!;
  assert.notEqual(moved.saved.person?.ticket, before.ticket);
  assert.match(String(moved.saved.person?.ticket), /^ticket-/);
  assert.deepEqual([moved.saved.person?.registered, moved.saved.person?.registeredAt], [null, null]);
  assert.deepEqual(moved.saved.owed.map((debt) => debt.installationId), ["id-0"]); // what was registered there may live on

  const [resting, waits] = answers(moved, { is: "not_ours" });
  assert.deepEqual(done(waits), ["wait put"]);
  assert.notEqual(resting.saved.installationId, moved.saved.installationId);
  assert.deepEqual(resting.saved.owed.map(({ isReplaced }) => isReplaced), [undefined, true]); // under the second id nothing was registered
  assert.deepEqual(phases(after(resting, { is: "timer", timer: "put" })), ["registering"]);
});

test("a registration whose answer was lost is owed its sign-out when its installation turns out to be somebody else's", () => {
  const [deaf] = lost();
  const [moved] = answers(after(deaf, OPENED)[0], { is: "not_ours" });
  assert.deepEqual(moved.saved.owed, [debtOf(deaf.saved.person!.ticket)]); // the server may have heard it
  const [crashed] = after(restored(registering().saved, FACTS, NOW), gives("a"));
  assert.equal(answers(crashed, { is: "not_ours" })[0].saved.owed.length, 1); // its answer died with the process
  const unheard = registering(); // but it may come twice
  const { owed } = answers(unheard, { is: "not_ours" })[0].saved;
  assert.deepEqual(owed, [{ ...debtOf(unheard.saved.person!.ticket), isReplaced: true }]);
});

test("the next person comes with the ticket of the one before, the newest of this installation", () => {
  const [left] = after(registered(), OUT);
  const alices = left.saved.owed[0]!;
  assert.deepEqual(left.saved.owed.map(({ installationId, since }) => [installationId, since]), [["id-0", NOW]]);
  const bobs = after(left, enters("bob"), gives("b"));
  assert.equal(registration(bobs)?.formerTicket, alices.ticket);
  assert.equal(registration(bobs)?.signOutDigest, `#${bobs[0].saved.person?.ticket}`);

  const owed = [debtOf("older"), debtOf("newest"), debtOf("elsewhere", "id-9")];
  assert.equal(registration(after(nobody(owed), enters("bob"), gives("b")))?.formerTicket, "newest");
  assert.equal(registration(after(nobody(owed.slice(2)), enters("bob"), gives("b")))?.formerTicket, null);

  const [heard] = answers(after(nobody(owed), enters("bob"), gives("b"))[0], TAKEN);
  const replaced = { ...debtOf("older"), isReplaced: true }; // no longer registered, but its PUT may still hang
  assert.deepEqual(heard.saved.owed, [replaced, debtOf("elsewhere", "id-9")]); // the newest was told with the registration
});

test("a sign-in whose ticket was used goes on with another, at once and then ever more slowly", () => {
  const [again, puts] = answers(after(registered(), gives("b"))[0], { is: "spent" });
  const before = registered().saved.person!;
  assert.notEqual(again.saved.person?.ticket, before.ticket);
  assert.deepEqual([again.saved.person?.registered, again.saved.owed], [null, []]); // the used one is not owed
  const told = registration([again, puts]);
  assert.deepEqual([told?.installationId, told?.signOutDigest], ["id-0", `#${again.saved.person?.ticket}`]);

  const [resting, waits] = answers(again, { is: "spent" });
  assert.deepEqual([resting.phase, done(waits)], [{ is: "registering", tries: 2, last: "ticket spent" }, ["wait put"]]);
  assert.equal(answers(after(resting, { is: "timer", timer: "put" })[0], TAKEN)[0].phase.is, "registered");

  const left = after(registering(), OUT)[0];
  const [gone, payments] = answers(left, { is: "spent" });
  assert.deepEqual([gone.phase.is, done(payments)], ["signed_out", ["pay"]]); // of an earlier sign-in: nothing follows
});

test("of more sign-outs than are kept, one goes that a later registration replaced", () => {
  const owed = Array.from({ length: MAX_DEBTS }, (_, place) => debtOf(`t${place}`));
  const [heard] = answers(after(nobody(owed), enters("bob"), gives("b"))[0], TAKEN);
  let [state] = after(heard, OUT);
  for (const person of ["carol", "dave"]) {
    [state] = after(state, enters(person), gives("b"));
    [state] = answers(state, { is: "lost", reason: "no network", retryAfter: 0 });
    [state] = after(state, OUT);
  }
  const tickets = state.saved.owed.map(({ ticket }) => ticket);
  assert.deepEqual([tickets.length, tickets[0], tickets[4]], [MAX_DEBTS, "t2", "t6"]);
  assert.equal(tickets[5], heard.saved.person?.ticket); // bob's, which the server answered
});

test("of more sign-outs than are kept, that of the registration that was answered stays", () => {
  let [state] = after(registered(), OUT);
  const alices = state.saved.owed[0]!;
  for (let person = 0; person < MAX_DEBTS + 3; person += 1) {
    [state] = after(state, enters(`person ${person}`), gives("b"));
    [state] = answers(state, { is: "lost", reason: "no network", retryAfter: 0 });
    [state] = after(state, OUT);
  }
  assert.equal(state.saved.owed.length, MAX_DEBTS);
  assert.equal(state.saved.owed[0], alices);
  assert.equal(new Set(state.saved.owed.map(({ ticket }) => ticket)).size, MAX_DEBTS);
});

test("debts are paid one by one, the oldest first, and a failure waits", () => {
  const owed = [debtOf("one"), debtOf("two")];
  const [, first] = after(nobody(owed), OPENED);
  assert.deepEqual(first, [{ do: "pay", debt: owed[0] }]);
  const [left, second] = after(nobody(owed), { is: "paid", debt: owed[0]! });
  assert.deepEqual([left.saved.owed, second], [[owed[1]], [{ do: "pay", debt: owed[1] }]]);
  const other = debtOf("one", "id-9");
  assert.deepEqual(after(nobody([other]), { is: "paid", debt: owed[0]! })[0].saved.owed, [other]);

  const [poor, waits] = after(nobody(owed), { is: "not_paid", retryAfter: 0 }, { is: "not_paid", retryAfter: 0 });
  assert.deepEqual(waits, [{ do: "wait", timer: "pay", milliseconds: 2_000 }]);
  assert.deepEqual(after(nobody(owed), { is: "not_paid", retryAfter: 9_000 })[1], [{ do: "wait", timer: "pay", milliseconds: 9_000 }]);
  assert.deepEqual(done(after(poor, { is: "timer", timer: "pay" })[1]), ["pay"]);
  assert.equal(after(poor, { is: "paid", debt: owed[0]! })[0].payingTries, 0);
});

test("a person who leaves while a registration is under way is paid for once it is answered, and then the next one registers", () => {
  const [left, effects] = after(registering(), OUT);
  assert.deepEqual([done(effects), left.saved.owed.length, left.token], [["forget_person"], 1, null]);
  const late = answers(left, TAKEN);
  assert.deepEqual([late[0].phase.is, done(late[1])], ["signed_out", ["pay"]]);

  const [bobs, none] = after(registering(), enters("bob"), gives("b"));
  assert.deepEqual([bobs.phase.is, none], ["registering", []]);
  const [next, both] = answers(bobs, TAKEN);
  assert.deepEqual([done(both), registration([next, both])?.userId], [["pay", "put"], "bob"]);
  assert.equal(next.saved.person?.registered, null); // her answer says nothing of him
  const [unasked, pays] = answers(after(registering(), enters("bob"))[0], TAKEN);
  assert.deepEqual([unasked.phase.is, done(pays)], ["waiting_for_token", ["pay"]]); // he has no token yet
});

test("who leaves before anything was put owes nothing", () => {
  assert.deepEqual(after(waiting(), OUT)[0].saved.owed, []);
});

test("an answer to what is no longer wished puts the newer wish", () => {
  const [rotated] = after(registering(), gives("b"));
  const [next, effects] = answers(rotated, TAKEN);
  assert.deepEqual([next.phase, registration([next, effects])?.token.token], [{ is: "registering", tries: 0, last: null }, "b"]);
  const [known, synced] = answers(next, TAKEN);
  assert.deepEqual([known.phase.is, done(synced)], ["registered", ["sync"]]);
  const [described] = after(registering(), describes({ permission: "denied" }));
  assert.equal(registration(answers(described, TAKEN))?.facts.permission, "denied");
});

test("a registration is told again after a day, and not before", () => {
  const open = (age: number) => done(step(registered(), OPENED, lent({ now: NOW + age }))[1]);
  assert.deepEqual(open(REGISTRATION_AGE - 1), ["fetch_token"]);
  assert.deepEqual(open(REGISTRATION_AGE), ["fetch_token", "put"]);
  assert.notEqual(step(registered(), OPENED, lent({ now: NOW + REGISTRATION_AGE }))[0].inFlight, null);
});

test("a clock that was set back makes a registration old, not young for the days until it catches up", () => {
  const back = lent({ now: NOW - 10 * 86_400_000 });
  assert.deepEqual(done(step(registered(), OPENED, back)[1]), ["fetch_token", "put"]);
  assert.deepEqual(done(step(registered(), { is: "not_registered" }, back)[1]), ["put"]); // and not after ten days
  const again = answers(step(registered(), OPENED, back)[0], TAKEN, { now: NOW - 10 * 86_400_000 })[0];
  assert.deepEqual(done(step(again, { is: "not_registered" }, back)[1]), ["wait put"]); // still at most once a minute
});

test("each registration of a sign-in has a higher number, and each sign-in begins anew", () => {
  const sequences = (...steps: (readonly [State, readonly Effect[]])[]) => steps.map((each) => registration(each)?.sequence);
  const first = after(waiting(), gives("a"));
  const again = after(answers(first[0], { is: "lost", reason: "no answer", retryAfter: 0 })[0], { is: "timer", timer: "put" });
  const rotated = after(answers(again[0], TAKEN)[0], gives("b"));
  const restarted = after(restored(rotated[0].saved, FACTS, NOW), gives("b"));
  const bobs = after(answers(restarted[0], TAKEN)[0], enters("bob"), gives("c"));
  assert.deepEqual(sequences(first, again, rotated, restarted, bobs), [1, 2, 3, 4, 1]);
});

test("a phone that remembers less of its sign-in than the server begins another, and owes the end of the one before", () => {
  const again = answers(after(registered(), gives("b"))[0], { is: "outdated" });
  const { sequence } = again[0].saved.person!;
  assert.deepEqual([again[0].phase, sequence], [{ is: "registering", tries: 1, last: "registration outdated" }, 1]);
  assert.deepEqual([registration(again)?.formerTicket, again[0].saved.owed.length], [again[0].saved.owed[0]?.ticket, 1]);
  const [known] = answers(again[0], TAKEN);
  assert.deepEqual([known.phase.is, known.saved.owed], ["registered", []]);
});

test("a token that the server calls dead is put once more, and then another one is waited for", () => {
  const [doubting] = after(registered(), REFRESH);
  assert.deepEqual([doubting.saved.person?.registered, doubting.saved.person?.registeredAt], [null, null]);
  const again = after(doubting, gives("a"));
  assert.deepEqual([again[0].phase.is, done(again[1])], ["registering", ["put"]]);
  const [revived] = answers(again[0], TAKEN);
  assert.equal(revived.phase.is, "registered");
  assert.deepEqual(phases(after(revived, OPENED, gives("a"))), ["registered"]);
  const [offline] = answers(again[0], { is: "lost", reason: "no network", retryAfter: 0 });
  assert.deepEqual(done(after(offline, gives("a"))[1]), ["put"]); // the server has not heard of it yet

  const stuck = after(revived, REFRESH, gives("a"));
  assert.deepEqual([stuck[0].phase.is, stuck[1]], ["waiting_for_token", []]);
  assert.match(String(stuck[0].phase.is === "waiting_for_token" && stuck[0].phase.last), /refused/);
  const other = after(stuck[0], gives("b"));
  assert.deepEqual([done(other[1]), other[0].saved.person?.doubted], [["put"], null]);
});

test("an installation that the server does not know is registered again, its token undoubted, and at most once a minute", () => {
  const unknown: Event = { is: "not_registered" };
  const [resting, waits] = after(registered(), unknown);
  assert.deepEqual(resting.phase, { is: "registering", tries: 0, last: "not registered" });
  assert.deepEqual(waits, [{ do: "wait", timer: "put", milliseconds: REGISTER_AGAIN_AFTER }]);
  assert.deepEqual(resting.saved.person, { ...registered().saved.person, ticket: resting.saved.person?.ticket, registered: null, registeredAt: null });
  assert.deepEqual(done(after(resting, { is: "timer", timer: "put" })[1]), ["put"]);
  assert.deepEqual(done(step(registered(), unknown, lent({ now: NOW + REGISTER_AGAIN_AFTER }))[1]), ["put"]);
  for (const state of [nobody(), waiting(), registering(), refused()]) {
    assert.deepEqual(step(state, unknown, lent()), [state, []]);
  }
});

test("a wait for a token grows, and says what the system said", () => {
  const [once, first] = after(waiting(), { is: "no_token", reason: "no network" });
  const [twice, second] = after(once, { is: "no_token", reason: "still none" });
  assert.deepEqual([first, second].map(([wait]) => wait?.do === "wait" && wait.milliseconds), [1_000, 2_000]);
  assert.deepEqual(twice.phase, { is: "waiting_for_token", since: NOW, tries: 2, last: "still none" });
});

test("after a start nothing is known but what was saved", () => {
  const state = restored(registered().saved, FACTS, NOW);
  assert.deepEqual([state.phase.is, state.token, state.inFlight], ["waiting_for_token", null, null]);
  assert.deepEqual(phases(after(state, gives("a"))), ["registered"]);
  assert.deepEqual(done(after(state, gives("b"))[1]), ["put"]);
});

test("what a person leaves is owed until it is gone, and the next one's log waits for that", () => {
  const goes = (generation: number, ...traces: Trace[]): Event => ({ is: "forgotten", generation, traces, facts: null });
  const [left, effects] = after(registered(), OUT);
  assert.deepEqual([left.saved.toForget, effects[0]], [TRACES, { do: "forget_person", generation: 1, traces: TRACES }]);
  const [some, waits] = after(left, goes(1, "screen", "key", "token"));
  assert.deepEqual([some.saved.toForget, waits], [["log"], [{ do: "wait", timer: "forget", milliseconds: FORGET_AGAIN_AFTER }]]);
  const again = { do: "forget_person", generation: 1, traces: ["log"] };
  assert.deepEqual(after(some, { is: "timer", timer: "forget" })[1], [again]);
  assert.deepEqual(after(some, OPENED)[1][0], again);
  assert.deepEqual(after(left, goes(0, "log"))[0].saved.toForget, TRACES); // that was the log of somebody before

  const [bobs] = answers(after(some, enters("bob"), gives("b"))[0], TAKEN);
  assert.deepEqual([bobs.phase.is, readable(bobs.saved)], ["registered", null]);
  const [reads, synced] = after(bobs, goes(1, "log"));
  assert.deepEqual([readable(reads.saved), done(synced)], ["id-0", ["sync"]]);
  assert.deepEqual(done(after(bobs, goes(1, "log", "token"))[1]), ["sync", "fetch_token"]); // the token was his by then
});

test("a registration that the server calls dead or unknown right after a start is made again", () => {
  for (const event of [REFRESH, { is: "not_registered" }] satisfies Event[]) {
    const [noted, none] = after(restored(registered().saved, FACTS, NOW), event);
    assert.deepEqual([noted.phase.is, none, readable(noted.saved)], ["waiting_for_token", [], null]);
    assert.deepEqual(done(after(noted, gives("a"))[1]), ["put"]);
  }
});
