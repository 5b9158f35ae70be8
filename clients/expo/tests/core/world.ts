/** A server, a phone and a network as the registration machine knows them, with a clock that a test moves. */

import { createHash } from "node:crypto";

import { Engine, type EnginePorts } from "../../src/core/engine.ts";
import type { Debt, DeviceToken, Facts, PutOutcome, Registration } from "../../src/core/registration.ts";

export type Weather = "fine" | "down" | "deaf"; // deaf: the server hears, its answers are lost

interface Row {
  userId: string;
  token: string;
  signOutDigest: string;
  isActive: boolean;
}

export class Server {
  readonly rows = new Map<string, Row>();
  readonly signedOut: string[] = [];
  underWay = 0;
  mostUnderWay = 0;

  put(registration: Registration): PutOutcome {
    const { installationId, userId, token, signOutDigest, formerTicket } = registration;
    const row = this.rows.get(installationId);
    if (row !== undefined && row.userId !== userId && row.isActive) {
      const isHandedOver = formerTicket !== null && digest(formerTicket) === row.signOutDigest;
      if (row.token !== token.token && !isHandedOver) {
        return { is: "not_ours" };
      }
    }
    for (const other of this.rows.values()) {
      if (other.token === token.token) {
        other.isActive = false;
      }
    }
    this.rows.set(installationId, { userId, token: token.token, signOutDigest, isActive: true });
    return { is: "taken" };
  }

  signOut(debt: Debt): void {
    const row = this.rows.get(debt.installationId);
    this.signedOut.push(debt.ticket);
    if (row !== undefined && row.signOutDigest === digest(debt.ticket)) {
      row.isActive = false;
    }
  }

  owners(token: string): string[] {
    return [...this.rows.values()].filter((row) => row.isActive && row.token === token).map((row) => row.userId);
  }
}

export class World {
  readonly server = new Server();
  weather: Weather = "fine";
  systemToken = "token-1";
  givesToken = true;
  facts: Facts = {
    permission: "granted",
    locale: "de-AT",
    timeZone: "Europe/Vienna",
    appVersion: "1",
    osVersion: "18",
    publicKey: null,
  };
  stored: string | null = null;
  forgotten = 0;
  putsOf: string[] = [];
  #tokens = 1;
  #secrets = 0;
  #now = 1_700_000_000_000;
  #alarms: { at: number; call: () => void }[] = [];
  #hanging: (() => void)[] = [];
  hangsNext = false;
  engine!: Engine;
  generationOfProcess = 0;

  async start(): Promise<void> {
    const process = ++this.generationOfProcess;
    const isAlive = () => process === this.generationOfProcess;
    const ports: EnginePorts = {
      vault: {
        read: async () => this.stored,
        write: async (value) => {
          if (isAlive()) {
            this.stored = value;
          }
        },
      },
      push: {
        fetchToken: async (): Promise<DeviceToken> => {
          if (!this.givesToken) {
            throw new Error("no network");
          }
          return { provider: "apns", token: this.systemToken, environment: "production" };
        },
        unregister: async () => this.rotate(),
      },
      clock: {
        now: () => this.#now,
        after: (milliseconds, call) => {
          const alarm = { at: this.#now + milliseconds, call: () => isAlive() && call() };
          this.#alarms.push(alarm);
          return () => {
            this.#alarms = this.#alarms.filter((each) => each !== alarm);
          };
        },
      },
      random: {
        uuid: () => `installation-${++this.#secrets}`,
        ticket: () => `ticket-${++this.#secrets}`.padEnd(32, "-"),
        chance: () => 0.5,
      },
      registrar: {
        put: (registration) => this.#put(registration),
        signOut: async (debt) => {
          if (this.weather === "down") {
            return { retryAfter: 0 };
          }
          this.server.signOut(debt);
          return this.weather === "fine" ? true : { retryAfter: 0 };
        },
      },
      phone: {
        facts: async () => this.facts,
        forgetPerson: async () => {
          this.forgotten += 1;
        },
      },
      onRegistered: () => undefined,
    };
    this.engine = await Engine.start(ports);
  }

  /** Die at this moment, and start again from what was saved. */
  async crash(): Promise<void> {
    this.generationOfProcess += 1;
    this.engine.close();
    this.#alarms = [];
    this.#letGo();
    await this.start();
  }

  rotate(): void {
    this.systemToken = `token-${++this.#tokens}`;
  }

  /** Let all that is under way come to its end, the calls that hang included. */
  async settle(): Promise<void> {
    this.#letGo();
    await this.flush();
  }

  async flush(): Promise<void> {
    for (let turn = 0; turn < 60; turn += 1) {
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
    this.server.underWay += 1;
    this.server.mostUnderWay = Math.max(this.server.mostUnderWay, this.server.underWay);
    this.putsOf.push(registration.userId);
    const weather = this.weather;
    if (this.hangsNext) {
      this.hangsNext = false;
      await new Promise<void>((resolve) => this.#hanging.push(resolve));
    }
    this.server.underWay -= 1;
    if (weather === "down") {
      return { is: "lost", reason: "no network", retryAfter: 0 };
    }
    const outcome = this.server.put(registration);
    return weather === "fine" ? outcome : { is: "lost", reason: "no answer", retryAfter: 0 };
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
