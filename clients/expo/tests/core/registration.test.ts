/** The registration machine under random lives: people, rotations, bad networks and deaths at every step. */

import assert from "node:assert/strict";
import { test } from "node:test";

import fc from "fast-check";

import { MAX_DEBTS } from "../../src/core/registration.ts";
import { STRANGER, type Weather, World } from "./world.ts";

type Act =
  | { act: "in"; user: string }
  | { act: "out" }
  | { act: (typeof PLAIN)[number] }
  | { act: "weather"; weather: Weather }
  | { act: "dies"; writes: number }
  | { act: "pass"; seconds: number };

const PLAIN = [
  "open", "rotate", "crash", "refresh", "hang", "settle", "describe", "rotated_unheard", "token_fails", "taken", "vault_fails", "unknown",
  "deleted",
  "log_fails", "late", "heard_late", "write_hangs", "writes_land",
] as const;
const WEATHERS = ["fine", "down", "deaf", "crowded", "unauthorized", "refuses"] as const;
const user = fc.constantFrom("alice", "bob", "carol");
const act: fc.Arbitrary<Act> = fc.oneof(
  { weight: 4, arbitrary: fc.record({ act: fc.constant("in" as const), user }) },
  { weight: 3, arbitrary: fc.constant({ act: "out" as const }) },
  { weight: 9, arbitrary: fc.record({ act: fc.constantFrom(...PLAIN) }) },
  { weight: 3, arbitrary: fc.record({ act: fc.constant("weather" as const), weather: fc.constantFrom(...WEATHERS) }) },
  { weight: 1, arbitrary: fc.record({ act: fc.constant("dies" as const), writes: fc.integer({ min: 1, max: 3 }) }) },
  { weight: 2, arbitrary: fc.record({ act: fc.constant("pass" as const), seconds: fc.integer({ min: 1, max: 100_000 }) }) },
) as fc.Arbitrary<Act>;

async function does(world: World, each: Act): Promise<void> {
  const { engine } = world;
  switch (each.act) {
    case "in":
      void engine.take({ is: "signed_in", userId: each.user });
      break;
    case "out":
      void engine.take({ is: "signed_out" });
      break;
    case "open":
      void engine.take({ is: "opened" }).then(() => world.read());
      break;
    case "rotate":
      world.rotate();
      void engine.take({ is: "token", token: { provider: "apns", token: world.systemToken, environment: "production" } });
      break;
    case "rotated_unheard":
      world.rotate();
      break;
    case "token_fails":
      world.givesToken = !world.givesToken;
      break;
    case "crash":
      await world.crash();
      break;
    case "dies":
      world.writesLeft = each.writes;
      break;
    case "taken":
      world.server.give(engine.state.saved.installationId);
      break;
    case "unknown":
      world.server.forget(engine.state.saved.installationId);
      void engine.take({ is: "not_registered" });
      break;
    case "deleted": // the phone learns of it with its next registration, or at the end
      world.server.delete(engine.state.saved.installationId);
      break;
    case "vault_fails":
      world.keeps = !world.keeps;
      break;
    case "log_fails":
      world.logKeeps = !world.logKeeps;
      break;
    case "refresh":
      void engine.take({ is: "refresh_required" });
      break;
    case "describe":
      world.facts = { ...world.facts, permission: world.facts.permission === "granted" ? "denied" : "granted" };
      void engine.describe();
      break;
    case "hang":
      world.hangsNext = true;
      break;
    case "late":
      world.isLateNext = true;
      break;
    case "heard_late":
      world.hear();
      break;
    case "write_hangs":
      world.hangingWrites += 1;
      break;
    case "writes_land":
      world.land();
      break;
    case "settle":
      await world.settle();
      break;
    case "weather":
      world.weather = each.weather;
      break;
    case "pass":
      await world.pass(each.seconds * 1000);
      break;
  }
}

/** Start a process that died, and say who is signed in, as an app does at each start. */
async function lives(world: World, signedIn: string | null): Promise<void> {
  if (world.isDead) {
    await world.crash();
  }
  void world.engine.take(signedIn === null ? { is: "signed_out" } : { is: "signed_in", userId: signedIn });
  await world.flush();
}

test("at rest the server holds the token of the person signed in last, or nobody's", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(fc.tuple(act, fc.boolean()), { maxLength: 40 }), fc.boolean(), fc.boolean(), async (acts, isAndroid, strangersLeave) => {
      const world = new World();
      world.isAndroid = isAndroid;
      await world.start();
      let signedIn: string | null = null;
      for (const [each, isQuiet] of acts) {
        if (each.act === "in" && world.engine.state.saved.owed.length >= MAX_DEBTS - 1) {
          continue; // of more than eight that the server does not hear of one is forgotten
        }
        await does(world, each);
        if (each.act === "in") {
          signedIn = each.user;
        } else if (each.act === "out") {
          signedIn = null;
        }
        if (isQuiet || each.act === "in" || each.act === "out") {
          await world.flush(); // an app awaits what it asked for
        }
        if (world.isDead || each.act === "crash") {
          await lives(world, signedIn);
        }
      }

      world.weather = "fine";
      world.givesToken = true;
      world.hangsNext = false;
      world.isLateNext = false;
      world.writesLeft = null;
      world.keeps = true;
      world.hangingWrites = 0;
      if (world.landing > 1) {
        world.land(); // of the two places of the store one may hang for ever
      }
      world.logKeeps = true;
      await world.settle();
      await lives(world, signedIn);
      world.rotate(); // whatever was refused: the system has another by now
      world.facts = { ...world.facts, appVersion: "2" }; // and the app is a newer one
      void world.engine.describe();
      for (let day = 0; day < 3; day += 1) {
        void world.engine.take({ is: "opened" });
        await world.pass(1_000_000);
      }

      if (strangersLeave) {
        world.server.strangersLeave();
      }
      world.hear(); // after all that was paid, and after later ones of the same sign-in: what is stored of it now stays
      world.land(); // after later ones: nothing of it comes back
      await world.crash();
      await lives(world, signedIn);
      void world.engine.take({ is: "opened" });
      await world.pass(1_000_000);

      const { saved, phase } = world.engine.state;
      assert.equal(saved.person?.userId ?? null, signedIn);
      assert.deepEqual([saved.owed, saved.toForget], [[], []]);
      assert.deepEqual([world.log, world.tapsOf], [signedIn, signedIn]);
      assert.equal(phase.is, signedIn === null ? "signed_out" : "registered");
      assert.deepEqual(
        world.server.activeOf((userId) => userId !== STRANGER),
        signedIn === null ? [] : [[signedIn, world.systemToken]],
      );
      for (const [installationId, row] of world.server.rows) {
        assert.ok(row.userId !== STRANGER || (row.isActive && row.token.endsWith(installationId)), "a stranger was signed out");
      }
      assert.deepEqual(world.unfounded, []);
      assert.equal(world.server.unjust, 0, "an installation was left though its ticket was there");
      assert.ok(world.server.mostUnderWay <= 1, "two registrations at once");
    }),
    { numRuns: Number(process.env["RUNS"] ?? 500) },
  );
});
