/** The whole client under random lives: people, deaths, second starts, bad networks, registrations that land late, vaults that hang. */

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";

import { type Fastbell, startFastbell } from "../../src/core/fastbell.ts";
import type { LogItem } from "../../src/core/log.ts";
import type { Ports, Secure } from "../../src/core/ports.ts";
import type { DeviceToken } from "../../src/core/registration.ts";
import { Disk, Phone } from "./phone.ts";

const LIVES = Number(process.env["LIVES"] ?? 60);
const FIRST = Number(process.env["FIRST"] ?? 1);
const ONCE_BAD = [2201, 2422, 7780];
const PEOPLE = ["alice", "bob", "carol"] as const;
const NETWORKS = ["fine", "fine", "down", "500", "401", "deaf"] as const; // deaf: the server hears, its answers are lost

type Person = (typeof PEOPLE)[number];

/** mulberry32 */
function chances(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}

const digest = (ticket: string) => createHash("sha256").update(ticket).digest("hex");
const problem = (status: number, type: string) => Response.json({ type: `urn:fastbell:problem:${type}`, status, detail: "" }, { status });

interface Body {
  readonly token: string;
  readonly public_key: string | null;
  readonly sign_out_digest: string;
  readonly sequence: number;
  readonly former_ticket: string | null;
}

/** The rules of registrations as docs/phones.md has them. */
class Server {
  readonly rows = new Map<string, { user: string; isActive: boolean; body: Body }>();
  readonly #spent = new Set<string>();
  readonly #sequences = new Map<string, number>();

  put(id: string, user: string, body: Body): Response {
    const former = body.former_ticket === null ? null : digest(body.former_ticket);
    const row = this.rows.get(id);
    if (this.#spent.has(body.sign_out_digest)) {
      return problem(409, "ticket-spent");
    }
    if (body.sequence < (this.#sequences.get(body.sign_out_digest) ?? 0)) {
      return problem(409, "registration-outdated");
    }
    if (row?.isActive && row.user !== user && row.body.token !== body.token && row.body.sign_out_digest !== former) {
      return problem(409, "installation-taken");
    }
    for (const other of this.rows.values()) {
      other.isActive &&= other.body.token !== body.token;
    }
    if (former !== null) {
      this.#spent.add(former);
    }
    this.#sequences.set(body.sign_out_digest, body.sequence);
    this.rows.set(id, { user, isActive: true, body });
    return Response.json({ installation_id: id });
  }

  pay(id: string, ticket: string): Response {
    const row = this.rows.get(id);
    this.#spent.add(digest(ticket));
    if (row?.body.sign_out_digest === digest(ticket)) {
      row.isActive = false;
    }
    return new Response(null, { status: 204, headers: { fastbell: "1" } });
  }

  sync(id: string, user: string, after: number): Response {
    const row = this.rows.get(id);
    if (row?.user !== user || !row.isActive) {
      return row?.user === user ? problem(409, "not-registered") : problem(404, "not-found");
    }
    const items = [1, 2, 3].filter((seq) => seq > after).map((seq) => ({ seq, kind: "message", id: `m${seq}`, body: user }));
    return Response.json({ items, next_cursor: Math.max(after, 3), has_more: false, refresh_required: false });
  }
}

class Life {
  readonly chance: () => number;
  readonly server = new Server();
  readonly store = new Disk();
  readonly bad: string[] = [];
  readonly acts: string[] = [];
  readonly #kept = new Map<string, string>();
  person: Person | null = null;
  network: (typeof NETWORKS)[number] = "fine";
  token = 1;
  isLate = false;
  vaultTakes = true;
  writesToHang = 0;
  app!: Fastbell;
  #key = 1;
  #secrets = 0;
  #process = 0;
  #secure!: Secure;
  #now = 1_700_000_000_000;
  #timers: { readonly at: number; readonly call: () => void }[] = [];
  #late: (() => void)[] = [];
  #hanging: (() => void)[] = [];
  #underWay = 0;
  #onToken: (token: DeviceToken) => void = () => undefined;
  #phone!: Phone;

  /** Android's token outlives a sign-out: the next person registers with the same one. */
  readonly #isAndroid: boolean;

  constructor(seed: number) {
    this.chance = chances(seed);
    this.#isAndroid = seed % 3 === 0;
  }

  one<T>(of: readonly T[]): T {
    return of[Math.floor(this.chance() * of.length)]!;
  }

  /** A new process. */
  async boots(): Promise<void> {
    this.#process += 1;
    this.#timers = [];
    this.#hanging = [];
    this.writesToHang = 0;
    this.#secure = this.#secureOf(this.#process);
    await this.starts();
  }

  /** Another Fastbell in this process. */
  async starts(): Promise<void> {
    const options = { baseUrl: "http://127.0.0.1:1", bearer: async () => this.person, store: this.store, sealed: true };
    const starting = startFastbell(options, this.#ports(this.#process));
    starting.then((app) => (this.app = app)).catch((error: unknown) => this.bad.push(String(error)));
    const before = this.app;
    for (let passed = 0; this.app === before && passed < 60_000; passed += 5_000) {
      await this.pass(5_000);
    }
    this.app.onItems((items) => this.bad.push(...items.filter(bodyOf).filter((item) => bodyOf(item) !== this.person).map((item) => `told ${bodyOf(item)}'s`)));
  }

  says(): Promise<void> {
    return this.person === null ? this.app.signOut() : this.app.signedIn(this.person);
  }

  rotates(): void {
    this.token += 1;
    if (this.chance() < 0.5) {
      this.#onToken(this.#deviceToken());
    }
  }

  fronts(isActive: boolean): void {
    this.#phone.onForeground(isActive);
  }

  /** What hung on its way to the server comes there. */
  async hears(): Promise<void> {
    this.#late.splice(0).forEach((put) => put());
    await this.settles();
  }

  lands(): void {
    this.#hanging.splice(0).forEach((land) => land());
  }

  get hangingWrites(): number {
    return this.#hanging.length;
  }

  get kept(): { person: { userId: string } | null; owed: unknown[] } {
    const texts = ["fastbell.registration", "fastbell.registration.2"].map((name) => this.#kept.get(name) ?? "");
    const saved = texts.filter((text) => text !== "").map((text) => JSON.parse(text));
    return saved.toSorted((a, b) => b.written - a.written)[0];
  }

  async settles(): Promise<void> {
    for (let quiet = 0; quiet < 4; quiet = this.#underWay === 0 ? quiet + 1 : 0) {
      await new Promise(setImmediate);
    }
  }

  async pass(milliseconds: number): Promise<void> {
    const until = this.#now + milliseconds;
    for (;;) {
      await this.settles();
      const next = this.#timers.toSorted((a, b) => a.at - b.at)[0];
      if (next === undefined || next.at > until) {
        break;
      }
      this.#timers = this.#timers.filter((each) => each !== next);
      this.#now = Math.max(this.#now, next.at);
      next.call();
    }
    this.#now = until;
  }

  wants(): string[] {
    return this.person === null ? [] : [`${this.person}: token-${this.token}, key-${this.#key}`];
  }

  has(): string[] {
    const active = [...this.server.rows.values()].filter(({ isActive }) => isActive);
    return active.map(({ user, body }) => `${user}: ${body.token}, ${body.public_key}`);
  }

  #deviceToken(): DeviceToken {
    return { provider: "apns", token: `token-${this.token}`, environment: "production" };
  }

  async #pause(): Promise<void> {
    for (let turns = Math.floor(this.chance() * 4); turns > 0; turns -= 1) {
      await new Promise(setImmediate);
    }
  }

  #secureOf(process: number): Secure {
    const write = async (name: string, value: string) => {
      await this.#pause();
      if (process === this.#process && this.writesToHang > 0 && name.startsWith("fastbell.registration")) {
        this.writesToHang -= 1;
        await new Promise<void>((resolve) => this.#hanging.push(resolve));
      }
      if (process !== this.#process) {
        return new Promise<never>(() => undefined);
      }
      if (!this.vaultTakes) {
        throw new Error("locked");
      }
      this.#kept.set(name, value);
    };
    return { vault: (name) => ({ read: async () => this.#kept.get(name) ?? null, write: (value) => write(name, value) }) };
  }

  #ports(process: number): Ports {
    const isAlive = () => process === this.#process;
    this.#phone = new Phone();
    const ports = this.#phone.ports();
    return {
      ...ports,
      secure: this.#secure,
      push: {
        fetchToken: async () => {
          await this.#pause();
          if (this.network === "down" && this.chance() < 0.5) {
            throw new Error("no network");
          }
          return this.#deviceToken();
        },
        unregister: async () => void (this.token += isAlive() && !this.#isAndroid ? 1 : 0),
        observe: (onToken) => {
          this.#onToken = onToken;
          return () => undefined;
        },
      },
      clock: {
        now: () => this.#now,
        after: (milliseconds, call) => {
          const timer = { at: this.#now + milliseconds, call: () => isAlive() && call() };
          this.#timers.push(timer);
          return () => {
            this.#timers = this.#timers.filter((each) => each !== timer);
          };
        },
      },
      random: {
        uuid: () => `5f0c3c0e-6d5b-4c6c-9d59-${String(++this.#secrets).padStart(12, "0")}`,
        ticket: () => `ticket-${++this.#secrets}`.padEnd(32, "-"),
        chance: this.chance,
      },
      keys: { publicKey: async () => `key-${this.#key}`, forget: async () => void (this.#key += isAlive() ? 1 : 0) },
      fetch: async (input, init) => {
        this.#underWay += 1;
        try {
          return await this.#answer(new Request(input, init), isAlive);
        } finally {
          this.#underWay -= 1;
        }
      },
    };
  }

  async #answer(request: Request, isAlive: () => boolean): Promise<Response> {
    const { pathname, searchParams } = new URL(request.url);
    const user = request.headers.get("authorization")?.replace("Bearer ", "") ?? null;
    const body = request.method === "PUT" || pathname === "/v1/sign-outs" ? await request.json() : null;
    const id = pathname.split("/").at(-1)!;
    const put = () => this.server.put(id, user!, body);
    const isPut = request.method === "PUT" && pathname.startsWith("/v1/device-tokens/") && user !== null;
    await this.#pause();
    const { network } = this;
    if (network === "down") {
      throw new TypeError("no network");
    }
    if (isPut && (this.isLate || !isAlive())) {
      this.isLate = false;
      this.#late.push(put);
      throw new TypeError("no answer");
    }
    if (network === "500" || network === "401") {
      return network === "500" ? new Response("oops", { status: 500 }) : problem(401, "not-signed-in");
    }
    const answer = this.#route(pathname, searchParams, user, body, isPut ? put : null);
    await this.#pause();
    if (network === "deaf") {
      throw new TypeError("no answer");
    }
    return isAlive() ? answer : problem(503, "unavailable"); // nobody hears it
  }

  #route(pathname: string, searchParams: URLSearchParams, user: string | null, body: unknown, put: (() => Response) | null): Response {
    if (pathname === "/v1/sign-outs") {
      const { installation_id, ticket } = body as { installation_id: string; ticket: string };
      return this.server.pay(installation_id, ticket);
    }
    if (user === null) {
      return problem(401, "not-signed-in");
    }
    if (pathname === "/v1/sync") {
      return this.server.sync(searchParams.get("installation_id")!, user, Number(searchParams.get("after")));
    }
    return put?.() ?? (pathname === "/v1/fasting-sessions" ? Response.json({ items: [] }) : new Response(null, { status: 503 }));
  }
}

const bodyOf = (item: LogItem): string | null => ("body" in item ? item.body : null);

async function acts(life: Life): Promise<void> {
  const says = async (whom: Person | null, often: number) => {
    life.person = whom ?? life.person;
    const said = whom === null ? life.app.signOut() : life.app.signedIn(whom);
    await (life.chance() < often ? Promise.race([said, life.pass(15_000)]) : undefined);
    life.person = whom;
  };
  const all: readonly [string, number, () => Promise<void> | void][] = [
    ["in", 20, () => says(life.one(PEOPLE), 0.5)],
    ["out", 15, () => says(null, 0.6)],
    ["network", 16, () => void (life.network = life.one(NETWORKS))],
    ["rotates", 10, () => life.rotates()],
    ["late", 8, () => void (life.isLate = true)],
    ["hears", 5, () => life.hears()],
    ["dies", 8, async () => (await life.boots(), void life.says())],
    ["starts again", 4, async () => (await life.starts(), void life.says())],
    ["leaves and comes", 6, () => (life.fronts(false), life.fronts(true))],
    ["vault", 5, () => void (life.vaultTakes = !life.vaultTakes)],
    ["write hangs", 6, () => void (life.writesToHang += 1)],
    ["writes land", 3, () => life.lands()],
    ["waits", 10, () => life.pass(life.one([2_000, 400_000]))],
  ];
  let left = life.chance() * all.reduce((sum, [, weight]) => sum + weight, 0);
  const [name, , act] = all.find(([, weight]) => (left -= weight) < 0)!;
  await act();
  life.acts.push(name === "in" ? `in as ${life.person}` : name === "network" ? life.network : name);
}

async function lives(seed: number): Promise<void> {
  const life = new Life(seed);
  await life.boots();
  for (let left = 4 + Math.floor(life.chance() * 14); left > 0; left -= 1) {
    await acts(life);
    await (life.chance() < 0.5 ? life.settles() : undefined);
  }

  Object.assign(life, { network: "fine", vaultTakes: true, isLate: false, writesToHang: 0 });
  if (life.hangingWrites > 1) {
    life.lands(); // one place of the store may hang for ever
  }
  const rests = async () => {
    void life.says();
    life.fronts(true);
    await life.pass(3_700_000);
    life.fronts(true);
    await life.pass(400_000);
  };
  await rests();
  await life.hears(); // late ones change nothing now, whosever they are
  life.lands();
  await life.settles();
  assert.deepEqual(life.has(), life.wants(), `${seed}: ${life.acts.join(", ")}`);
  await life.boots(); // nor does what is stored
  await rests();
  life.app.close();

  const { kept, person } = life;
  const bodies = [...new Set(life.store.bodies())];
  const found = { server: life.has(), log: bodies, kept: kept.person?.userId ?? null, owed: kept.owed, bad: life.bad };
  const wanted = { server: life.wants(), log: person === null ? [] : [person], kept: person, owed: [], bad: [] };
  assert.deepEqual(found, wanted, `${seed}: ${life.acts.join(", ")}`);
}

test("at rest the server holds the token of the person signed in last, or nobody's, and the phone that person's log", async () => {
  for (const seed of [...ONCE_BAD, ...Array.from({ length: LIVES }, (_, place) => FIRST + place)]) {
    await lives(seed);
  }
});
