/** A vault that takes no writes for a while, or gives back what nobody wrote. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { Openings } from "../../src/core/openings.ts";
import { WRITE_LIMIT } from "../../src/core/registration_store.ts";
import { Backend } from "./backend.ts";
import { World } from "./world.ts";

const PERSON = { userId: "alice", ticket: "t".repeat(32), mayBeKnown: true, sequence: 7, registered: null, registeredAt: null, doubted: null };
const DEBT = { installationId: "installation-0", ticket: "o".repeat(32), since: 0 };
const SAVED = { scheme: 1, installationId: "installation-0", person: PERSON, owed: [DEBT], toForget: [] };
const WHOLE = JSON.stringify(SAVED);
const DATA = { task_id: "task-1", kind: "reminder", url: "fastbell://test-push" };

async function world(stored: string | null = null): Promise<World> {
  const made = new World();
  made.places[0] = stored;
  await made.start();
  return made;
}

test("who signs in while nothing can be stored is registered once something can, and not before", async () => {
  const phone = await world();
  phone.keeps = false;

  await phone.engine.take({ is: "signed_in", userId: "alice" });
  await phone.pass(100_000);
  assert.deepEqual([phone.engine.state.phase.is, phone.server.heard.size], ["signed_out", 0]);
  assert.doesNotMatch(phone.stored ?? "", /alice/);

  phone.keeps = true;
  await phone.engine.take({ is: "opened" }); // the next trigger of whatever kind
  await phone.flush();
  assert.deepEqual(phone.server.activeOf(() => true), [["alice", phone.systemToken]]);
});

test("time alone brings it about, too", async () => {
  const phone = await world();
  phone.keeps = false;
  await phone.engine.take({ is: "signed_in", userId: "alice" });
  phone.keeps = true;
  await phone.pass(2_000);
  assert.equal(phone.engine.state.phase.is, "registered");
});

test("a sign-out that cannot be stored fails nobody, ends nothing halfway, and comes about later", async () => {
  const phone = await world();
  await phone.engine.take({ is: "signed_in", userId: "alice" });
  await phone.flush();
  const { forgotten } = phone;
  phone.keeps = false;

  await phone.engine.take({ is: "signed_out" });
  await phone.engine.take({ is: "signed_in", userId: "bob" }); // and while it waits, another person: only he counts
  await phone.flush();
  assert.deepEqual([phone.forgotten - forgotten, phone.server.activeOf(() => true).length], [0, 1]);
  assert.equal(phone.engine.state.saved.person?.userId, "alice");

  phone.keeps = true;
  await phone.pass(10_000);
  assert.equal(phone.forgotten - forgotten, 1);
  assert.deepEqual(phone.server.activeOf(() => true), [["bob", phone.systemToken]]);
});

test("an answer that cannot be stored is kept, and nothing else is put meanwhile", async () => {
  const phone = await world();
  phone.hangsNext = true;
  await phone.engine.take({ is: "signed_in", userId: "alice" });
  await phone.flush();
  phone.keeps = false;
  await phone.settle(); // the answer
  phone.rotate();
  await phone.engine.take({ is: "token", token: { provider: "apns", token: phone.systemToken, environment: "production" } });
  await phone.pass(60_000);
  assert.equal(phone.puts, 1);

  phone.keeps = true;
  await phone.pass(120_000);
  assert.deepEqual([phone.puts, phone.engine.state.phase.is], [2, "registered"]);
  assert.deepEqual(phone.server.activeOf(() => true), [["alice", phone.systemToken]]);
});

test("what waits for the vault does not grow", async () => {
  const phone = await world();
  phone.keeps = false;
  await phone.engine.take({ is: "signed_in", userId: "alice" });
  for (let times = 0; times < 200; times += 1) {
    await phone.engine.take({ is: times % 2 === 0 ? "opened" : "refresh_required" });
    await phone.engine.take({ is: "signed_in", userId: `person ${times}` });
  }
  assert.equal(phone.alarms, 1); // one retry
  const tries = phone.writes;
  await phone.pass(1_000_000);
  assert.ok(phone.writes - tries < 12, `${phone.writes - tries} tries in a quarter of an hour`);

  phone.keeps = true;
  await phone.pass(1_000_000);
  assert.equal(phone.engine.state.saved.person?.userId, "person 199");
  assert.deepEqual([phone.puts, phone.writes - phone.writesRefused], [1, 5]); // the installation, once more as that may have failed, him, his registration, its answer
});

for (const [name, stored] of [
  ["cut off", WHOLE.slice(0, WHOLE.length / 2)],
  ["empty", ""],
  ["of a later release", JSON.stringify({ ...SAVED, scheme: 2 })],
  ["without debts", JSON.stringify({ ...SAVED, owed: undefined })],
  ["without what is to be forgotten", JSON.stringify({ ...SAVED, toForget: undefined })],
  ["with something unknown to be forgotten", JSON.stringify({ ...SAVED, toForget: ["diary"] })],
  ["without an installation", JSON.stringify({ ...SAVED, installationId: 7 })],
  ["with half a person", JSON.stringify({ ...SAVED, person: { userId: "alice" } })],
  ["with a time that is none", JSON.stringify({ ...SAVED, person: { ...PERSON, registeredAt: "noon" } })],
  ["with a doubt about nothing", JSON.stringify({ ...SAVED, person: { ...PERSON, doubted: {} } })],
  ["with a debt without a ticket", JSON.stringify({ ...SAVED, owed: [{ installationId: "a" }] })],
  ["with a debt for nothing", JSON.stringify({ ...SAVED, owed: [{ ticket: DEBT.ticket }] })],
  ["a number", "7"],
  ["null", "null"],
  ["no JSON", "\u0000\u0001"],
] as const) {
  test(`what is stored is ${name}: signed out afresh, and whoever's lines and log there are go`, async () => {
    const phone = await world(stored);
    assert.deepEqual([phone.engine.state.phase.is, phone.forgotten], ["signed_out", 1]);

    await phone.engine.take({ is: "signed_in", userId: "bob" });
    await phone.flush();
    assert.deepEqual([phone.engine.state.phase.is, phone.unfounded], ["registered", []]);
    assert.match(phone.stored ?? "", /"bob"/);
  });
}

test("the next person's turn begins once the one before is forgotten, or after five seconds", async () => {
  for (const isForgotten of [true, false]) {
    const phone = await world();
    await phone.engine.take({ is: "signed_in", userId: "alice" });
    await phone.flush();
    const { promise, resolve } = Promise.withResolvers<void>();
    phone.forgetting = promise;
    const { fetches } = phone;
    void phone.engine.take({ is: "signed_in", userId: "bob" });
    await phone.pass(4_000);
    assert.deepEqual([phone.fetches, phone.engine.state.saved.person?.userId], [fetches, "bob"]);
    if (isForgotten) {
      resolve();
    }
    await phone.pass(isForgotten ? 0 : 1_000);
    assert.equal(phone.engine.state.phase.is, "registered");
  }
});

test("the system is asked for one token at a time", async () => {
  const phone = await world();
  const { promise, resolve } = Promise.withResolvers<void>();
  phone.fetching = promise;
  await phone.engine.take({ is: "signed_in", userId: "alice" });
  await phone.engine.take({ is: "opened" });
  await phone.engine.take({ is: "opened" });
  assert.equal(phone.fetches, 1);
  resolve();
  await phone.flush();
  await phone.engine.take({ is: "opened" });
  assert.equal(phone.fetches, 2);
});

test("a closed engine takes nothing more, and waits for nothing", async () => {
  const phone = await world();
  phone.weather = "down";
  await phone.engine.take({ is: "signed_in", userId: "alice" });
  await phone.flush();
  phone.engine.close();
  phone.weather = "fine";
  void phone.engine.take({ is: "opened" });
  await phone.pass(1_000_000);
  assert.deepEqual([phone.puts, phone.server.heard.size], [1, 0]);
});

test("what a release before numbers stored is read", async () => {
  const { sequence: _, ...person } = PERSON;
  const phone = await world(JSON.stringify({ ...SAVED, person }));
  assert.deepEqual([phone.engine.state.saved, phone.forgotten], [{ ...SAVED, person: { ...PERSON, sequence: 0 } }, 0]);
});

test("what is stored last counts, whichever place it is in, and what can be read in neither is lost", async () => {
  const later = JSON.stringify({ ...SAVED, person: null, written: 8 });
  for (const [first, second, person] of [
    [JSON.stringify({ ...SAVED, written: 7 }), later, null],
    [later, WHOLE, null],
    [WHOLE, "", PERSON],
    [null, WHOLE, PERSON],
  ] as const) {
    const phone = new World();
    phone.places.splice(0, 2, first, second);
    await phone.start();
    assert.deepEqual([phone.engine.state.saved, phone.forgotten], [{ ...SAVED, person }, 0]);
  }
  for (const odd of ["{", JSON.stringify({ ...SAVED, written: "x" }), JSON.stringify({ ...SAVED, scheme: 2 })]) {
    const phone = new World();
    phone.places.splice(0, 2, WHOLE, odd);
    await phone.start();
    assert.deepEqual([phone.engine.state.phase.is, phone.forgotten], ["signed_out", 1]);
  }
});

test("a write that hangs stops nothing: it is made in another place, and lands in vain", async () => {
  const phone = await world();
  await phone.engine.take({ is: "signed_in", userId: "alice" });
  await phone.flush();
  phone.hangingWrites = 1;

  void phone.engine.take({ is: "signed_out" });
  void phone.engine.take({ is: "signed_in", userId: "bob" });
  await phone.pass(WRITE_LIMIT);
  assert.deepEqual([phone.landing, phone.engine.state.phase.is], [1, "registered"]);
  assert.deepEqual(phone.server.activeOf(() => true), [["bob", phone.systemToken]]);

  phone.land();
  await phone.flush();
  assert.match(phone.stored ?? "", /"bob"/);
  void phone.engine.take({ is: "refresh_required" }); // the first place is free
  await phone.flush();
  assert.match(phone.places[0] ?? "", /"bob"/);
  assert.equal(phone.places[1], ""); // where an older state would outlive its person
});

test("while writes hang in both places nothing is begun, whoever asks is let go, and one that lands is enough", async () => {
  const phone = await world();
  await phone.engine.take({ is: "signed_in", userId: "alice" });
  await phone.flush();
  phone.hangingWrites = 2;
  let isSaid = false;
  void phone.engine.take({ is: "signed_out" }).then(() => (isSaid = true));
  await phone.pass(2 * WRITE_LIMIT);
  assert.deepEqual([isSaid, phone.engine.state.phase.is, phone.server.signedOut], [true, "registered", []]);
  const { writes } = phone;
  await phone.pass(1_000_000);
  assert.equal(phone.writes, writes);

  phone.land();
  await phone.pass(1_000_000);
  assert.deepEqual([phone.engine.state.phase.is, phone.server.activeOf(() => true)], ["signed_out", []]);
});

test("what is whole is read, and nothing is forgotten", async () => {
  const phone = await world(WHOLE);
  assert.deepEqual([phone.engine.state.saved, phone.forgotten], [SAVED, 0]);
});

test("a tap leads to its screen though nothing can be stored, and is told to the backend", async (t) => {
  const backend = await new Backend().start();
  t.after(() => backend.stop());
  let stored: string | null = '{"scheme":1,"userId":"alice"'; // cut off
  let keeps = false;
  const vault = {
    read: async () => stored,
    write: async (value: string) => {
      if (!keeps) {
        throw new Error("the keychain is locked");
      }
      stored = value;
    },
  };
  const clock = { now: () => 0, after: () => () => undefined };
  const random = { uuid: () => "", ticket: () => "", chance: () => 0 };
  const openings = new Openings({ api: backend.api(), vault, clock, random, links: ["fastbell://"] });

  await openings.belongTo("alice");
  await openings.tapped(DATA);
  await openings.tapped(DATA);
  assert.equal(openings.take()?.path, "/test-push");
  assert.equal(openings.take(), null);
  keeps = true;
  await openings.tapped({ ...DATA, task_id: "task-2" });
  while (!/"task-1".*true.*"task-2".*true/.test(stored)) {
    await new Promise(setImmediate);
  }

  assert.deepEqual(backend.opened, ["task-1", "task-2"]);
});

for (const odd of ['{"scheme":1,"userId":"alice"}', '{"scheme":1,"userId":"alice","entries":[7]}', '{"scheme":1,"userId":"alice","entries":{}}']) {
  test(`openings that read ${odd} begin afresh`, async () => {
    const api = new Backend().api();
    const vault = { read: async () => odd, write: async () => undefined };
    const clock = { now: () => 0, after: () => () => undefined };
    const random = { uuid: () => "", ticket: () => "", chance: () => 0 };
    const openings = new Openings({ api, vault, clock, random, links: ["fastbell://"] });
    await openings.belongTo("alice");
    await openings.tapped(DATA);
    assert.equal(openings.take()?.taskId, "task-1");
    openings.close();
  });
}
