/** A phone's process that is killed right after it has stored something: `node victim.ts API USER BEARER FILE WRITES ACT`. */

import { readFileSync, writeFileSync } from "node:fs";

import { Phone } from "./phone.ts";
import type { Run } from "./run.ts";

const [api, user, bearer, file, writes, act] = process.argv.slice(2) as [string, string, string, string, string, string];

/** Secrets that a file keeps; the process dies with the given write. */
class Kept extends Map<string, string> {
  #left = Number(writes);

  override set(name: string, value: string): this {
    super.set(name, value);
    writeFileSync(file, JSON.stringify([...this]));
    if (name === "fastbell.registration" && --this.#left === 0) {
      process.kill(process.pid, "SIGKILL");
    }
    return this;
  }
}

const kept = new Kept();
for (const [name, value] of stored()) {
  Map.prototype.set.call(kept, name, value);
}
const phone = new Phone({ api } as Run, kept);
phone.bearer = bearer;
await phone.open();
if (act === "in") {
  await phone.app.signedIn(user);
} else {
  await phone.app.signOut();
}
setInterval(() => undefined, 1000);

function stored(): [string, string][] {
  try {
    return JSON.parse(readFileSync(file, "utf8")) as [string, string][];
  } catch {
    return [];
  }
}
