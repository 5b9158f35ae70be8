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

test("calls wait for the start in their order, and a start that fails is tried again", async () => {
  const said: string[] = [];
  let tries = 0;
  const app = later({
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
  const calls = [app.signOut(), app.signedIn("alice")];
  await Promise.all(calls);

  assert.deepEqual(said, ["out", "in alice"]);
  assert.equal(app.push.current.is, "waiting_for_token");
  assert.deepEqual(seen, ["waiting_for_token"]);
});

test("what ends before the start never begins", async () => {
  const said: string[] = [];
  let begin: () => void = () => undefined;
  const app = later({
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
