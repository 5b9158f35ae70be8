import assert from "node:assert/strict";
import { test } from "node:test";

import { pathOf } from "../../src/core/links.ts";
import { over } from "../../src/core/screen.ts";

const ID = "5f0c3c0e-6d5b-4c6c-9d59-3f0f0a4f7a01";
const LINKS = ["fastbell://", "https://fast.example/"];

test("only the app's own links to what a push is about are followed", () => {
  for (const [url, path] of [
    [`fastbell://fasting-sessions/${ID}`, `/fasting-sessions/${ID}`],
    [`https://fast.example/conversations/${ID}`, `/conversations/${ID}`],
    ["fastbell://test-push", "/test-push"],
    [`https://evil.example/conversations/${ID}`, "/"],
    [`https://fast.example.evil/conversations/${ID}`, "/"],
    [`fastbell://fasting-sessions/${ID}/../../admin`, "/"],
    [`fastbell://fasting-sessions/${ID}?next=//evil.example`, "/"],
    ["fastbell://settings", "/"],
    ["javascript:alert(1)", "/"],
    ["", "/"],
  ] as const) {
    assert.equal(pathOf(url, LINKS), path, url);
  }
});

test("a line goes once its fast is over or its conversation is read, and others stay", () => {
  const [going, done, unread, read] = ["1", "2", "3", "4"].map((last) => ID.slice(0, -1) + last) as [string, string, string, string];
  const shown = [
    ["going", `fastbell://fasting-sessions/${going}`],
    ["done", `fastbell://fasting-sessions/${done}`],
    ["unread", `fastbell://conversations/${unread}`],
    ["read", `fastbell://conversations/${read}`],
    ["test", "fastbell://test-push"],
    ["somebody else's", "other://fasting-sessions/" + done],
  ].map(([identifier, url]) => ({ identifier: identifier!, data: { url } }));

  const named = [`fasting-session/${going}`, `fasting-session/${done}`, `conversation/${read}`, "test/1", "no data"];
  const bare = named.map((identifier) => ({ identifier, data: null }));
  const gone = over([...shown, ...bare], { activeFasts: new Set([going]), unread: new Set([unread]) }, LINKS);

  assert.deepEqual(gone, ["done", "read", `fasting-session/${done}`, `conversation/${read}`]);
});
