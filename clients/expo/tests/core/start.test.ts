/** The whole of the core on a phone of which one part fails. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { startFastbell } from "../../src/core/fastbell.ts";
import type { Ports } from "../../src/core/ports.ts";

const ID = "5f0c3c0e-6d5b-4c6c-9d59-3f0f0a4f7a01";

/** A phone without a network but for registrations, whose bodies it keeps. */
class Phone {
  readonly bodies: { public_key: string | null }[] = [];
  listeners = 0;
  onForeground: (isActive: boolean) => void = () => undefined;
  key: () => Promise<string> = async () => "key-1";
  permission: () => Promise<"granted"> = async () => "granted";

  ports(): Ports {
    const listens = () => {
      this.listeners += 1;
      return () => {
        this.listeners -= 1;
      };
    };
    const kept = new Map<string, string>();
    return {
      push: {
        fetchToken: async () => ({ provider: "fcm", token: "t", environment: "production" }),
        unregister: async () => undefined,
        observe: listens,
      },
      secure: {
        vault: (name) => ({ read: async () => kept.get(name) ?? null, write: async (value) => void kept.set(name, value) }),
      },
      clock: { now: () => 0, after: () => () => undefined },
      random: { uuid: () => ID, ticket: () => "t".repeat(32), chance: () => 0 },
      network: { observe: listens },
      foreground: {
        isActive: true,
        observe: (observer) => {
          this.onForeground = observer;
          return listens();
        },
      },
      system: { locale: () => null, timeZone: () => null, appVersion: () => null, osVersion: () => null, observe: listens },
      permissions: { read: () => this.permission(), ask: () => this.permission() },
      keys: { publicKey: () => this.key(), forget: async () => undefined },
      screen: { shown: async () => [], dismiss: async () => undefined, dismissAll: async () => undefined },
      taps: { observe: listens },
      fetch: async (input, init) => {
        const request = new Request(input, init);
        if (request.method !== "PUT") {
          throw new TypeError("no network");
        }
        this.bodies.push((await request.json()) as { public_key: string | null });
        return Response.json({});
      },
    };
  }
}

const OPTIONS = { baseUrl: "http://127.0.0.1:1", bearer: async () => "bearer", sealed: true };

async function until(isTrue: () => boolean): Promise<void> {
  while (!isTrue()) {
    await new Promise(setImmediate);
  }
}

test("a start that fails halfway leaves nobody listening", async () => {
  const phone = new Phone();
  let reads = 0;
  phone.permission = async () => {
    reads += 1;
    if (reads > 1) {
      throw new Error("the system is not ready");
    }
    return "granted";
  };

  await assert.rejects(startFastbell(OPTIONS, phone.ports()), /not ready/);

  assert.equal(phone.listeners, 0);
});

test("a phone whose key cannot be read is registered without, and keeps the key that it had read", async () => {
  const phone = new Phone();
  phone.key = () => Promise.reject(new Error("locked"));
  const app = await startFastbell(OPTIONS, phone.ports());

  await app.signedIn("alice");
  await until(() => app.push.current.is === "registered");
  phone.key = async () => "key-1";
  phone.onForeground(true);
  await until(() => phone.bodies.length === 2);
  await until(() => app.push.current.is === "registered");
  phone.key = () => Promise.reject(new Error("locked"));
  phone.onForeground(true);
  await new Promise((resolve) => setTimeout(resolve, 20));
  app.close();

  assert.deepEqual(phone.bodies.map(({ public_key }) => public_key), [null, "key-1"]);
  assert.deepEqual([app.push.current.is, phone.listeners], ["registered", 0]);
});
