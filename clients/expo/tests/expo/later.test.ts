import assert from "node:assert/strict";
import { test } from "node:test";

import type { Fastbell, PushState } from "../../src/core/fastbell.ts";
import { later } from "../../src/core/later.ts";

/** Behaves as the app's own, and tells what it was asked. */
function started(said: string[]): Fastbell {
  const observers = new Set<(state: PushState) => void>();
  return {
    signedIn: async (userId: string) => void said.push(`in ${userId}`),
    signOut: async () => void said.push("out"),
    push: {
      current: { is: "waiting_for_token", since: new Date(0), last: null },
      subscribe: (observer: (state: PushState) => void) => {
        observers.add(observer);
        return () => void observers.delete(observer);
      },
    },
    onItems: () => () => void said.push("items ended"),
    openings: { take: () => null, subscribe: () => () => undefined },
    close: () => void said.push("closed"),
  } as unknown as Fastbell;
}

let timers: (() => void)[] = [];
const clock = {
  now: () => 0,
  after: (milliseconds: number, call: () => void) => {
    assert.equal(milliseconds, 5_000);
    timers.push(call);
    return () => {
      timers = timers.filter((each) => each !== call);
    };
  },
};

async function until(isTrue: () => boolean): Promise<void> {
  while (!isTrue()) {
    await new Promise(setImmediate);
  }
}

test("calls wait for the start in their order, and a start that fails is tried again", async () => {
  const said: string[] = [];
  let tries = 0;
  const app = later({
    clock,
    start: async () => {
      tries += 1;
      if (tries === 1) {
        throw new Error("the phone was never unlocked");
      }
      return started(said);
    },
    rest: async () => undefined,
  });
  const seen: string[] = [];
  app.push.subscribe((state) => seen.push(state.is));

  assert.equal(app.push.current.is, "signed_out");
  await Promise.all([app.signOut(), app.signedIn("alice")]);
  await until(() => said.length === 2);

  assert.deepEqual(said, ["out", "in alice"]);
  assert.equal(app.push.current.is, "waiting_for_token");
  assert.deepEqual(seen, ["waiting_for_token"]);
});

test("what ends before the start never begins", async () => {
  const said: string[] = [];
  let begin: () => void = () => undefined;
  const app = later({
    clock,
    start: async () => {
      await new Promise<void>((resolve) => (begin = resolve));
      return started(said);
    },
    rest: async () => undefined,
  });
  const seen: string[] = [];

  app.push.subscribe((state) => seen.push(state.is))();
  app.onItems(() => undefined)();
  app.close();
  begin();
  await new Promise(setImmediate);

  assert.deepEqual(seen, []);
  assert.deepEqual(said, ["closed"]);
});

test("who signs out while the phone lends no secrets waits for nothing, and is signed out once it does", async () => {
  const said: string[] = [];
  let isLocked = true;
  const app = later({
    clock,
    start: async () => {
      if (isLocked) {
        throw new Error("the phone was never unlocked");
      }
      return started(said);
    },
    rest: () => new Promise((resolve) => void setImmediate(resolve)),
  });

  await app.signOut();
  await app.signedIn("alice");
  assert.deepEqual(said, []);
  isLocked = false;
  await until(() => said.length === 2);

  assert.deepEqual(said, ["out", "in alice"]);
});

test("what is closed while its start fails starts no more, and keeps nobody waiting", async () => {
  let starts = 0;
  const app = later({
    clock,
    start: async () => {
      starts += 1;
      throw new Error("the phone was never unlocked");
    },
    rest: () => new Promise((resolve) => void setImmediate(resolve)),
  });
  const waiting = [app.sync(), app.fasts.current(), app.preferences.pageUrl(), app.askPermission()];
  await until(() => starts > 2);

  app.close();
  const before = starts;
  const answers = await Promise.all([...waiting, app.signOut(), app.signedIn("alice"), app.preferences.read()]);
  for (let turn = 0; turn < 10; turn += 1) {
    await new Promise(setImmediate);
  }

  assert.equal(starts, before);
  const problem = { is: "offline", detail: "closed before it had started" };
  const none = { ok: false, problem };
  assert.deepEqual(answers, [problem, none, none, "undetermined", undefined, undefined, none]);
});

test("who signs in or out while the phone answers nothing waits for five seconds, and it happens once it does", async () => {
  const said: string[] = [];
  let answers: () => void = () => undefined;
  const app = later({
    clock,
    start: async () => {
      await new Promise<void>((resolve) => (answers = resolve));
      const slow = started(said);
      return { ...slow, signOut: () => slow.signOut().then(() => new Promise<never>(() => undefined)) };
    },
    rest: async () => undefined,
  });

  const waiting = [app.signOut(), app.signedIn("alice")];
  timers.splice(0).forEach((passed) => passed());
  await Promise.all(waiting);
  assert.deepEqual(said, []);
  answers();
  await until(() => said.length === 2);
  const out = app.signOut();
  await until(() => said.length === 3);
  timers.splice(0).forEach((passed) => passed());
  await out;

  assert.deepEqual([said, timers], [["out", "in alice", "out"], []]);
});
