/** The vectors of docs/encryption.md, opened in JavaScript. On a phone native code opens them: see checks/. */

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";

import { Chacha20Poly1305 } from "@hpke/chacha20poly1305";
import { CipherSuite, DhkemX25519HkdfSha256, HkdfSha256 } from "@hpke/core";

const DOCUMENT = new URL("../../../../docs/encryption.md", import.meta.url);
const suite = new CipherSuite({ kem: new DhkemX25519HkdfSha256(), kdf: new HkdfSha256(), aead: new Chacha20Poly1305() });

async function opened(vector: Record<string, string>, kind: string): Promise<unknown> {
  const bytes = Buffer.from(vector["sealed"] ?? "", "base64");
  const recipient = await suite.createRecipientContext({
    recipientKey: await suite.kem.importKey("raw", new Uint8Array(Buffer.from(vector["private key"] ?? "", "hex")).buffer, false),
    enc: new Uint8Array(bytes.subarray(0, 32)).buffer,
    info: new TextEncoder().encode(`fastbell/1/${vector["task_id"]}/${kind}`).buffer,
  });
  return JSON.parse(new TextDecoder().decode(await recipient.open(new Uint8Array(bytes.subarray(32)).buffer)));
}

test("a text opens for its own push, and for no other", async () => {
  const blocks = [...(await readFile(DOCUMENT, "utf8")).matchAll(/```text\n(private key.*?)```/gs)].map(([, block]) => block ?? "");
  assert.ok(blocks.length >= 2);

  for (const block of blocks) {
    const lines = block.trim().split("\n").map((line) => /^(.*?) {2,}(.*)$/.exec(line)?.slice(1) as [string, string]);
    const vector = Object.fromEntries(lines);
    assert.deepEqual(await opened(vector, vector["kind"] ?? ""), JSON.parse(vector["plaintext"] ?? ""));
    await assert.rejects(opened(vector, "message"));
  }
});
