/** The registration machine under random lives: people, rotations, bad networks and deaths at every step. */

import assert from "node:assert/strict";
import { test } from "node:test";

import fc from "fast-check";

import { World } from "./world.ts";

type Act =
  | { act: "in"; user: string }
  | { act: "out" }
  | { act: "open" | "rotate" | "crash" | "refresh" | "hang" | "settle" | "describe" | "rotated_unheard" | "token_fails" }
  | { act: "weather"; weather: "fine" | "down" | "deaf" }
  | { act: "pass"; seconds: number };

const user = fc.constantFrom("alice", "bob", "carol");
const act: fc.Arbitrary<Act> = fc.oneof(
  { weight: 4, arbitrary: fc.record({ act: fc.constant("in" as const), user }) },
  { weight: 3, arbitrary: fc.constant({ act: "out" as const }) },
  {
    weight: 8,
    arbitrary: fc.record({
      act: fc.constantFrom(
        "open", "rotate", "crash", "refresh", "hang", "settle", "describe", "rotated_unheard", "token_fails",
      ),
    }),
  },
  { weight: 3, arbitrary: fc.record({ act: fc.constant("weather" as const), weather: fc.constantFrom("fine", "down", "deaf") }) },
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
      void engine.take({ is: "opened" });
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
    case "refresh":
      void engine.take({ is: "refresh_required" });
      break;
    case "describe":
      world.facts = { ...world.facts, permission: world.facts.permission === "granted" ? "denied" : "granted" };
      void engine.take({ is: "described", facts: world.facts });
      break;
    case "hang":
      world.hangsNext = true;
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

test("at rest the server holds the token of the person signed in last, or nobody's", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(fc.tuple(act, fc.boolean()), { maxLength: 40 }), async (acts) => {
      const world = new World();
      await world.start();
      let signedIn: string | null = null;
      for (const [each, isQuiet] of acts) {
        await does(world, each);
        if (each.act === "in") {
          signedIn = each.user;
        } else if (each.act === "out") {
          signedIn = null;
        }
        if (isQuiet || each.act === "in" || each.act === "out") {
          await world.flush(); // an app awaits what it asked for
        }
      }

      world.weather = "fine";
      world.givesToken = true;
      world.hangsNext = false;
      await world.settle();
      world.rotate(); // whatever was refused: the system has another by now
      for (let day = 0; day < 3; day += 1) {
        void world.engine.take({ is: "opened" });
        await world.pass(1_000_000);
      }

      const { saved, phase } = world.engine.state;
      assert.equal(saved.person?.userId ?? null, signedIn);
      assert.deepEqual(saved.owed, []);
      assert.equal(phase.is, signedIn === null ? "signed_out" : "registered");
      const active = [...world.server.rows.values()].filter((row) => row.isActive);
      assert.deepEqual(
        active.map((row) => [row.userId, row.token]),
        signedIn === null ? [] : [[signedIn, world.systemToken]],
      );
      assert.ok(world.server.mostUnderWay <= 1, "two registrations at once");
    }),
    { numRuns: Number(process.env["RUNS"] ?? 500) },
  );
});
