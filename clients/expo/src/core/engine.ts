/** Runs the registration machine: one event at a time, what is saved before what follows from it. */

import { sha256 } from "@noble/hashes/sha2.js";
import { bytesToHex, utf8ToBytes } from "@noble/hashes/utils.js";

import type { Clock, Phone, Push, Random, Registrar, Vault } from "./ports.ts";
import { type Effect, type Event, type Facts, type Lent, type Saved, type State, type Timer, restored, step } from "./registration.ts";

export interface EnginePorts {
  readonly push: Push;
  readonly vault: Vault;
  readonly clock: Clock;
  readonly random: Random;
  readonly registrar: Registrar;
  readonly phone: Phone;
  /** The log may be read: a registration has been taken. */
  onRegistered(): void;
}

const FETCH_LIMIT = 30_000; // milliseconds; without a network iOS may never answer

const FORGET_LIMIT = 5_000;

export class Engine {
  readonly #ports: EnginePorts;
  readonly #timers = new Map<Timer, () => void>();
  readonly #observers = new Set<(state: State) => void>();
  #state: State;
  #saved: string;
  #turn: Promise<void> = Promise.resolve();
  #isFetching = false;
  #paying: string | null = null;
  #isClosed = false;

  private constructor(ports: EnginePorts, state: State, saved: string) {
    this.#ports = ports;
    this.#state = state;
    this.#saved = saved;
  }

  /** Go on where the last process stopped. */
  static async start(ports: EnginePorts): Promise<Engine> {
    const [text, facts] = await Promise.all([ports.vault.read(), ports.phone.facts()]);
    const saved = parsed(text) ?? { scheme: 1, installationId: ports.random.uuid(), person: null, owed: [] };
    return new Engine(ports, restored(saved, facts, ports.clock.now()), text ?? "");
  }

  get state(): State {
    return this.#state;
  }

  observe(observer: (state: State) => void): () => void {
    this.#observers.add(observer);
    return () => this.#observers.delete(observer);
  }

  /** Take an event; resolves once its consequences are saved, and begun. */
  take(event: Event): Promise<void> {
    const turn = this.#turn.then(() => this.#step(event));
    this.#turn = turn.catch(() => undefined);
    return turn;
  }

  close(): void {
    this.#isClosed = true;
    for (const cancel of this.#timers.values()) {
      cancel();
    }
    this.#timers.clear();
  }

  async #step(event: Event): Promise<void> {
    if (this.#isClosed) {
      return;
    }
    const [next, effects] = step(this.#state, event, this.#lent());
    const saved = JSON.stringify(next.saved);
    if (saved !== this.#saved) {
      await this.#ports.vault.write(saved);
      this.#saved = saved;
    }
    this.#state = next;
    for (const observer of this.#observers) {
      observer(next);
    }
    for (const effect of effects) {
      if (effect.do === "forget_person") {
        await this.#forgetPerson(); // before the next person's log begins
      } else {
        this.#begin(effect);
      }
    }
  }

  async #forgetPerson(): Promise<void> {
    const { clock, phone, push } = this.#ports;
    const forgotten = Promise.allSettled([phone.forgetPerson(), push.unregister()]);
    await Promise.race([forgotten, new Promise<void>((resolve) => clock.after(FORGET_LIMIT, resolve))]);
  }

  #begin(effect: Exclude<Effect, { do: "forget_person" }>): void {
    const { registrar } = this.#ports;
    switch (effect.do) {
      case "fetch_token":
        void this.#fetch();
        break;
      case "put":
        void registrar.put(effect.registration).then((outcome) =>
          this.take({ is: "put_answered", generation: effect.generation, digest: effect.digest, outcome }),
        );
        break;
      case "pay":
        void this.#pay(effect.debt);
        break;
      case "wait":
        this.#wait(effect.timer, effect.milliseconds);
        break;
      case "sync":
        this.#ports.onRegistered();
        break;
    }
  }

  async #fetch(): Promise<void> {
    if (this.#isFetching) {
      return; // iOS rejects the first of two
    }
    this.#isFetching = true;
    const limit = new Promise<never>((_, reject) => {
      this.#ports.clock.after(FETCH_LIMIT, () => reject(new Error("the system did not answer")));
    });
    const event: Event = await Promise.race([this.#ports.push.fetchToken(), limit]).then(
      (token): Event => ({ is: "token", token }),
      (error: unknown): Event => ({ is: "no_token", reason: error instanceof Error ? error.message : String(error) }),
    );
    this.#isFetching = false;
    await this.take(event);
  }

  async #pay(debt: { installationId: string; ticket: string; since: number }): Promise<void> {
    if (this.#paying === debt.ticket) {
      return;
    }
    this.#paying = debt.ticket;
    const outcome = await this.#ports.registrar.signOut(debt);
    this.#paying = null;
    await this.take(outcome === true ? { is: "paid", debt } : { is: "not_paid", retryAfter: outcome.retryAfter });
  }

  #wait(timer: Timer, milliseconds: number): void {
    this.#timers.get(timer)?.();
    const cancel = this.#ports.clock.after(milliseconds, () => {
      this.#timers.delete(timer);
      void this.take({ is: "timer", timer });
    });
    this.#timers.set(timer, cancel);
  }

  #lent(): Lent {
    const { clock, random } = this.#ports;
    return {
      now: clock.now(),
      chance: random.chance(),
      installationId: random.uuid(),
      ticket: random.ticket(),
      digest: (text) => bytesToHex(sha256(utf8ToBytes(text))),
    };
  }
}

function parsed(text: string | null): Saved | null {
  if (text === null) {
    return null;
  }
  try {
    const saved = JSON.parse(text) as Saved;
    return saved.scheme === 1 ? saved : null;
  } catch {
    return null; // unreadable counts as a fresh install
  }
}

export type { Facts };
