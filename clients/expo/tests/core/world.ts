/** A server, a phone and a network as the registration machine knows them, with a clock that a test moves. */

import assert from "node:assert/strict";
import { createHash } from "node:crypto";

import { Engine, type EnginePorts } from "../../src/core/engine.ts";
import type { Clock, Vault } from "../../src/core/ports.ts";
import { type Debt, type DeviceToken, type Facts, type PutOutcome, type Registration, type Saved, readable } from "../../src/core/registration.ts";
import { RegistrationStore } from "../../src/core/registration_store.ts";

/** Deaf: the server hears, its answers are lost. Crowded: it takes no sign-outs. */
export type Weather = "fine" | "down" | "deaf" | "crowded" | "unauthorized" | "refuses";

/** What a dead process waits for. */
const NEVER = new Promise<never>(() => undefined);

interface Row {
  userId: string;
  token: string;
  signOutDigest: string;
  isActive: boolean;
}

export const STRANGER = "mallory";

export class Server {
  readonly rows = new Map<string, Row>();
  readonly signedOut: string[] = [];
  readonly heard = new Set<string>(); // digests of the tickets of registrations that were taken
  readonly spent = new Set<string>(); // digests of tickets that were used
  readonly sequences = new Map<string, number>(); // the highest, by digest
  /** Refusals that a ticket which the phone has would have spared it. */
  unjust = 0;
  underWay = 0;
  mostUnderWay = 0;

  put(registration: Registration): PutOutcome {
    const { installationId, userId, token, signOutDigest, sequence, formerTicket } = registration;
    const row = this.rows.get(installationId);
    if (this.spent.has(signOutDigest)) {
      return { is: "spent" };
    }
    if (sequence < (this.sequences.get(signOutDigest) ?? 0)) {
      return { is: "outdated" };
    }
    if (row !== undefined && row.userId !== userId && row.isActive) {
      const isHandedOver = formerTicket !== null && digest(formerTicket) === row.signOutDigest;
      if (row.token !== token.token && !isHandedOver) {
        const isUnheard = formerTicket !== null && !this.heard.has(digest(formerTicket));
        this.unjust += row.userId === STRANGER || isUnheard ? 0 : 1;
        return { is: "not_ours" };
      }
    }
    for (const other of this.rows.values()) {
      if (other.token === token.token) {
        other.isActive = false;
      }
    }
    this.heard.add(signOutDigest);
    this.sequences.set(signOutDigest, sequence);
    if (formerTicket !== null) {
      this.spent.add(digest(formerTicket));
    }
    this.rows.set(installationId, { userId, token: token.token, signOutDigest, isActive: true });
    return { is: "taken" };
  }

  /** Somebody else's phone is on this installation from now on. */
  give(installationId: string): void {
    const token = `${STRANGER}'s on ${installationId}`;
    this.rows.set(installationId, { userId: STRANGER, token, signOutDigest: digest(token), isActive: true });
  }

  /** Those who have others' installations sign out. */
  strangersLeave(): void {
    for (const [installationId, row] of this.rows) {
      if (row.userId === STRANGER) {
        this.rows.delete(installationId);
      }
    }
  }

  /** Crowded out by the person's other phones. */
  forget(installationId: string): void {
    const row = this.rows.get(installationId);
    if (row !== undefined && row.userId !== STRANGER) {
      row.isActive = false;
    }
  }

  /** Signed out by the backend, which uses up the ticket. */
  delete(installationId: string): void {
    const row = this.rows.get(installationId);
    if (row !== undefined && row.userId !== STRANGER) {
      this.spent.add(row.signOutDigest);
      row.isActive = false;
    }
  }

  activeOf(isWanted: (userId: string) => boolean): [string, string][] {
    const active = [...this.rows.values()].filter((row) => row.isActive && isWanted(row.userId));
    return active.map((row) => [row.userId, row.token]);
  }

  signOut(debt: Debt): void {
    const row = this.rows.get(debt.installationId);
    this.signedOut.push(debt.ticket);
    this.spent.add(digest(debt.ticket));
    if (row !== undefined && row.signOutDigest === digest(debt.ticket)) {
      row.isActive = false;
    }
  }
}

export class World {
  readonly server = new Server();
  weather: Weather = "fine";
  systemToken = "token-1";
  /** Its token outlives a sign-out: the next person registers with the same one. */
  isAndroid = false;
  givesToken = true;
  facts: Facts = {
    permission: "granted",
    locale: "de-AT",
    timeZone: "Europe/Vienna",
    appVersion: "1",
    osVersion: "18",
    publicKey: null,
  };
  /** The places of the store. */
  readonly places: [string | null, string | null] = [null, null];
  /** So many of the next writes hang, until they land. */
  hangingWrites = 0;
  #landing: (() => void)[] = [];
  /** Whether the vaults take writes. */
  keeps = true;
  /** So many writes more, and the process dies right after the last; null: it lives. */
  writesLeft: number | null = null;
  isDead = false;
  writes = 0;
  writesRefused = 0;
  puts = 0;
  fetches = 0;
  forgotten = 0;
  /** Whose log is on the disk, and whether the disk takes writes. */
  log: string | null = null;
  logKeeps = true;
  /** Whose taps are followed. */
  tapsOf: string | null = null;
  /** What the system's answer waits for, and what forgetting a person does. */
  fetching: Promise<unknown> | null = null;
  forgetting: Promise<unknown> | null = null;
  /** What was done that does not follow from what was stored. */
  readonly unfounded: string[] = [];
  #tokens = 1;
  #keys = 1;
  #secrets = 0;
  #now = 1_700_000_000_000;
  #alarms: { at: number; call: () => void }[] = [];
  #hanging: (() => void)[] = [];
  hangsNext = false;
  /** Registrations that hang in the server: the phone has given them up. */
  #late: Registration[] = [];
  readonly #heard: Registration[] = [];
  isLateNext = false;
  engine!: Engine;
  generationOfProcess = 0;

  async start(): Promise<void> {
    const process = ++this.generationOfProcess;
    const isAlive = () => process === this.generationOfProcess;
    this.isDead = false;
    this.writesLeft = null;
    const clock: Clock = {
      now: () => this.#now,
      after: (milliseconds, call) => {
        const alarm = { at: this.#now + milliseconds, call: () => isAlive() && call() };
        this.#alarms.push(alarm);
        return () => {
          this.#alarms = this.#alarms.filter((each) => each !== alarm);
        };
      },
    };
    const ports: EnginePorts = {
      store: new RegistrationStore([this.#vault(0, isAlive), this.#vault(1, isAlive)], clock),
      push: {
        fetchToken: async (): Promise<DeviceToken> => {
          this.fetches += 1;
          await this.fetching;
          if (!this.givesToken) {
            throw new Error("no network");
          }
          return { provider: "apns", token: this.systemToken, environment: "production" };
        },
        unregister: async () => assert.fail("it is the phone that forgets"),
      },
      clock,
      random: {
        uuid: () => `installation-${++this.#secrets}`,
        ticket: () => `ticket-${++this.#secrets}`.padEnd(32, "-"),
        chance: () => 0.5,
      },
      registrar: {
        put: (registration) => (isAlive() ? this.#put(registration) : NEVER),
        signOut: async (debt) => {
          await (isAlive() ? undefined : NEVER);
          this.#expect(this.#saved()?.owed.some(({ ticket }) => ticket === debt.ticket) === true, "a debt is paid");
          if (this.weather === "down" || this.weather === "crowded") {
            return { retryAfter: 0 };
          }
          this.server.signOut(debt);
          return this.weather === "deaf" ? { retryAfter: 0 } : true;
        },
      },
      phone: {
        facts: async () => this.described(),
        belongTo: (userId) => {
          this.tapsOf = userId;
        },
        forget: async (trace) => {
          await (isAlive() ? this.forgetting : NEVER);
          switch (trace) {
            case "log":
              if (!this.logKeeps) {
                throw new Error("database or disk is full");
              }
              this.forgotten += 1;
              this.log = null;
              break;
            case "key":
              this.#keys += 1;
              break;
            case "token":
              if (!this.isAndroid) {
                this.rotate();
              }
              break;
          }
        },
      },
      onRegistered: () => this.read(),
    };
    this.engine = await Engine.start(ports);
    this.tapsOf = this.engine.state.saved.person?.userId ?? null;
  }

  #vault(place: 0 | 1, isAlive: () => boolean): Vault {
    return {
      read: async () => this.places[place],
      write: async (value) => {
        this.writes += 1;
        if (!this.keeps) {
          this.writesRefused += 1;
          throw new Error("the keychain is locked");
        }
        if (isAlive() && this.hangingWrites > 0) {
          this.hangingWrites -= 1;
          await new Promise<void>((resolve) => this.#landing.push(resolve));
        }
        if (isAlive()) {
          this.places[place] = value;
        }
        if (isAlive() && this.writesLeft !== null && --this.writesLeft <= 0) {
          this.#die();
        }
        await (isAlive() ? undefined : NEVER);
      },
    };
  }

  /** Writes that hang come about, however late. */
  land(): void {
    this.#landing.splice(0).forEach((resolve) => resolve());
  }

  get landing(): number {
    return this.#landing.length;
  }

  /** Sync, as far as the machine lets it. */
  read(): void {
    const { saved } = this.engine.state;
    if (saved.person !== null && readable(saved) !== null) {
      this.#expect(this.log === null || this.log === saved.person.userId, `${saved.person.userId} reads the log of ${this.log}`);
      this.log = saved.person.userId;
    }
  }

  /** Die at this moment, and start again from what was saved. */
  async crash(): Promise<void> {
    this.#die();
    this.#letGo();
    await this.start();
  }

  #die(): void {
    this.generationOfProcess += 1;
    this.isDead = true;
    this.engine.close();
    this.#alarms = [];
    this.#landing = [];
    this.hangingWrites = 0;
  }

  /** What counts of what is stored. */
  get stored(): string | null {
    const number = (text: string | null) => Number(/"written":(\d+)/.exec(text ?? "")?.[1] ?? -1);
    const [first, second] = this.places;
    return number(second) > number(first) ? second : first;
  }

  #saved(): Saved | null {
    return this.stored === null ? null : (JSON.parse(this.stored) as Saved);
  }

  #expect(isTrue: boolean, what: string): void {
    if (!isTrue) {
      this.unfounded.push(`${what}, and ${this.stored} is stored`);
    }
  }

  get alarms(): number {
    return this.#alarms.length;
  }

  described(): Facts {
    return { ...this.facts, publicKey: `key-${this.#keys}` };
  }

  rotate(): void {
    this.systemToken = `token-${++this.#tokens}`;
  }

  /** The server comes to what hangs in it, and once more to all that came before. */
  hear(): void {
    const { unjust } = this.server;
    for (const registration of [...this.#late.splice(0), ...this.#heard]) {
      this.server.put(registration);
    }
    this.server.unjust = unjust; // nobody hears these answers
  }

  /** Let all that is under way come to its end, the calls that hang included. */
  async settle(): Promise<void> {
    this.#letGo();
    await this.flush();
  }

  async flush(): Promise<void> {
    for (let turn = 0; turn < 100; turn += 1) {
      await Promise.resolve();
    }
  }

  /** Let time pass until nothing waits for it, or for `limit` milliseconds. */
  async pass(limit: number): Promise<void> {
    const until = this.#now + limit;
    for (;;) {
      await this.flush();
      const next = this.#alarms.toSorted((a, b) => a.at - b.at)[0];
      if (next === undefined || next.at > until) {
        break;
      }
      this.#alarms = this.#alarms.filter((each) => each !== next);
      this.#now = Math.max(this.#now, next.at);
      next.call();
    }
    this.#now = until;
    await this.flush();
  }

  async #put(registration: Registration): Promise<PutOutcome> {
    this.puts += 1;
    this.server.underWay += 1;
    this.server.mostUnderWay = Math.max(this.server.mostUnderWay, this.server.underWay);
    const { person, installationId } = this.#saved() ?? { person: null, installationId: "" };
    const isStored = person?.userId === registration.userId && person.mayBeKnown && installationId === registration.installationId;
    this.#expect(isStored && digest(person.ticket) === registration.signOutDigest, `${registration.userId} is registered`);
    this.#expect(registration.facts.publicKey === `key-${this.#keys}`, `${registration.facts.publicKey} is told, which is gone`);
    const weather = this.weather;
    if (this.hangsNext) {
      this.hangsNext = false;
      await new Promise<void>((resolve) => this.#hanging.push(resolve));
    }
    this.server.underWay -= 1;
    if (weather === "down") {
      return { is: "lost", reason: "no network", retryAfter: 0 };
    }
    if (weather === "unauthorized") {
      return { is: "unauthorized" };
    }
    if (weather === "refuses") {
      return { is: "refused", problem: { status: 422, type: "urn:fastbell:problem:invalid-request", detail: "No." } };
    }
    if (this.isLateNext) {
      this.isLateNext = false;
      this.#late.push(registration);
      return { is: "lost", reason: "no answer", retryAfter: 0 };
    }
    const outcome = this.server.put(registration);
    this.#heard.push(registration);
    return weather === "deaf" ? { is: "lost", reason: "no answer", retryAfter: 0 } : outcome;
  }

  #letGo(): void {
    for (const resolve of this.#hanging.splice(0)) {
      resolve();
    }
  }
}

export function digest(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}
