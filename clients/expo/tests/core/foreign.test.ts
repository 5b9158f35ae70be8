/** Answers of whatever stands between a phone and Fastbell: none is taken for Fastbell's own, by any call. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { startFastbell } from "../../src/core/fastbell.ts";
import { MemoryStore } from "../../src/core/log.ts";
import { ID, OPTIONS, Phone, until } from "./phone.ts";

const FOREIGN: Record<string, () => Response> = {
  "an empty 200": () => new Response("", { headers: { "content-length": "0" } }),
  "an empty object": () => Response.json({}),
  "another's object": () => Response.json({ status: "ok", data: [], items: "none" }),
  "half a page": () => Response.json({ items: null, next_cursor: 5, has_more: true }),
  "a list of something": () => Response.json({ items: [7], next_cursor: 5, has_more: false }),
  "null": () => Response.json(null),
  "a list": () => Response.json([]),
  "a page": () => new Response("<html>Sign in to the network</html>", { headers: { "content-type": "text/html" } }),
  "a 201": () => Response.json({}, { status: 201 }),
  "a 204": () => new Response(null, { status: 204 }),
  "a gateway's sign-in": () => new Response("<html>Sign in</html>", { status: 401, headers: { "content-type": "text/html" } }),
  "another's 401": () => Response.json({ type: "about:blank", detail: "no token" }, { status: 401 }),
  "a way elsewhere": () => new Response(null, { status: 302, headers: { location: "http://portal/" } }),
};

for (const [name, foreign] of Object.entries(FOREIGN)) {
  test(`${name} is nobody's answer: nothing is registered, read, changed or paid by it, and no call throws`, async () => {
    const phone = new Phone();
    const store = new MemoryStore();
    const app = await startFastbell({ ...OPTIONS, store }, phone.ports());
    await app.signedIn("alice");
    await until(() => app.push.current.is === "registered");
    await app.sync();
    const [cursor, size] = [await store.cursor(), store.items.size];
    phone.way = () => foreign();
    const id = ID;

    const answers = [
      await app.fasts.current(),
      await app.fasts.start({ id, started_at: "2026-11-29T12:00:00Z", ends_at: "2026-11-30T04:00:00Z" } as never),
      await app.fasts.move(id, {} as never),
      await app.fasts.end(id),
      await app.fasts.cancel(id),
      await app.preferences.read(),
      await app.preferences.change({ messages: false }),
      await app.preferences.pageUrl(),
    ];
    for (const answer of answers) {
      assert.equal(answer.ok || answer.problem.is, "unavailable");
    }
    assert.equal((await app.sync())?.is, "unavailable");
    assert.deepEqual([await store.cursor(), store.items.size], [cursor, size]);

    await app.signOut();
    await app.signedIn("bob");
    await until(() => {
      const { current } = app.push;
      return current.is === "registering" && current.tries > 0;
    });
    await app.signOut();
    await new Promise((resolve) => setTimeout(resolve, 10));
    assert.deepEqual([app.push.current, phone.paid], [{ is: "signed_out", owed: 2 }, 0]);
    app.close();
  });
}
