/**
 * Runs the registration machine: one event at a time, what is saved before what follows from it.
 *
 * A vault may take no writes for a while: a keychain before the first unlock, a full disk, a write that hangs in both places of
 * the store. Then the event waits, and those behind it; nothing that follows from them is begun. Each later event tries again,
 * and so does a timer.
 */

import { sha256 } from "@noble/hashes/sha2.js";
import { bytesToHex, utf8ToBytes } from "@noble/hashes/utils.js";

import { tell } from "./observers.ts";
import type { Clock, Phone, Push, Random, Registrar } from "./ports.ts";
import {
  type Effect,
  type Event,
  type Facts,
  type Lent,
  type Saved,
  type State,
  type Timer,
  type Trace,
  TRACES,
  forgetting,
  restored,
  step,
} from "./registration.ts";
import type { RegistrationStore } from "./registration_store.ts";
import { CALL_API, delay } from "./retry.ts";
import { Turns } from "./turns.ts";
import { within } from "./within.ts";

export interface EnginePorts {
  readonly push: Push;
  readonly store: RegistrationStore;
  readonly clock: Clock;
  readonly random: Random;
  readonly registrar: Registrar;
  readonly phone: Phone;
  /** The log may be read: a registration has been taken. */
  onRegistered(): void;
}

type Forget = Extract<Effect, { do: "forget_person" }>;

const FETCH_LIMIT = 30_000; // milliseconds; without a network iOS may never answer

const FORGET_LIMIT = 5_000; // milliseconds
const BEGIN_LIMIT = 15_000; // milliseconds

export class Engine {
  readonly #ports: EnginePorts;
  readonly #timers = new Map<Timer, () => void>();
  readonly #observers = new Set<(state: State) => void>();
  #state: State;
  #saved: string | null;
  #waiting: Event[] = [];
  #failures = 0;
  #forgets = 0;
  #retry: () => void = () => undefined;
  readonly #turns = new Turns();
  #isFetching = false;
  #paying: string | null = null;
  #isClosed = false;

  private constructor(ports: EnginePorts, state: State, saved: string) {
    this.#ports = ports;
    this.#state = state;
    this.#saved = saved;
  }

  /** Go on where the last process stopped. Rejects where what it stored cannot be read; with `isGivenUp` that is lost. */
  static async start(ports: EnginePorts, isGivenUp = false): Promise<Engine> {
    const [known, facts] = await Promise.all([ports.store.read(isGivenUp), ports.phone.facts()]);
    // Lost, unreadable, or a first start: whose log and lines there may be is not known any more, so they are nobody's.
    const saved: Saved = known ?? { scheme: 1, installationId: ports.random.uuid(), person: null, owed: [], toForget: TRACES };
    const engine = new Engine(ports, restored(saved, facts, ports.clock.now()), JSON.stringify(known));
    const begun = engine.#inTurn(() => engine.#act(engine.#state, forgetting(engine.#state)));
    await within(ports.clock, BEGIN_LIMIT, begun); // whatever else happens comes after it in any case
    return engine;
  }

  get state(): State {
    return this.#state;
  }

  observe(observer: (state: State) => void): () => void {
    this.#observers.add(observer);
    return () => this.#observers.delete(observer);
  }

  /** Take an event; resolves once its consequences are saved and begun, or wait for a vault that takes no writes. */
  take(event: Event): Promise<void> {
    return this.#inTurn(() => this.#enqueue(event));
  }

  /** Look at what the phone says of itself. What was read before a key went is not taken: it was read again since. */
  async describe(): Promise<void> {
    const before = this.#forgets;
    const facts = await this.#ports.phone.facts();
    await this.#inTurn(() => (before === this.#forgets ? this.#enqueue({ is: "described", facts }) : undefined));
  }

  /** Take nothing more; resolves once what was begun is stored, or will not be. */
  close(): Promise<void> {
    this.#isClosed = true;
    this.#retry();
    for (const cancel of this.#timers.values()) {
      cancel();
    }
    this.#timers.clear();
    return this.#turns.take(() => undefined);
  }

  #enqueue(event: Event): void {
    this.#waiting = [...this.#waiting.filter((each) => subjectOf(each) !== subjectOf(event)), event];
  }

  #inTurn(begin: () => Promise<void> | void): Promise<void> {
    return this.#turns.take(async () => {
      await begin();
      await this.#steps();
    });
  }

  async #steps(): Promise<void> {
    for (let event = this.#waiting.shift(); event !== undefined && !this.#isClosed; event = this.#waiting.shift()) {
      const [next, effects] = step(this.#state, event, this.#lent());
      if (!(await this.#isSaved(next.saved))) {
        this.#waiting.unshift(event);
        return;
      }
      if (this.#isClosed) {
        return; // whoever goes on from what is saved acts on it
      }
      await this.#act(next, effects);
    }
  }

  /** False when no write was taken: it is asked again later. */
  async #isSaved(saved: Saved): Promise<boolean> {
    const text = JSON.stringify(saved);
    if (text === this.#saved) {
      return true;
    }
    this.#retry();
    try {
      await this.#ports.store.write(saved, () => !this.#isClosed);
    } catch {
      this.#saved = null; // it may be stored all the same
      this.#failures += 1;
      const wait = delay(CALL_API, this.#failures, this.#ports.random.chance());
      if (!this.#isClosed) {
        this.#retry = this.#ports.clock.after(wait, () => void this.#inTurn(() => undefined));
      }
      return false;
    }
    this.#failures = 0;
    this.#saved = text;
    return true;
  }

  async #act(next: State, effects: readonly Effect[]): Promise<void> {
    const userId = next.saved.person?.userId ?? null;
    if (userId !== (this.#state.saved.person?.userId ?? null)) {
      this.#ports.phone.belongTo(userId);
    }
    this.#state = next;
    tell(this.#observers, next);
    for (const effect of effects) {
      if (effect.do === "forget_person") {
        await this.#forget(effect); // before anything of the next person begins
      } else {
        this.#begin(effect);
      }
    }
  }

  /** What fails or takes too long stays to be forgotten. The facts are read again: the key went with the person. */
  async #forget({ generation, traces }: Forget): Promise<void> {
    const { phone, clock } = this.#ports;
    const gone: Trace[] = [];
    await within(clock, FORGET_LIMIT, Promise.allSettled(traces.map((trace) => phone.forget(trace).then(() => gone.push(trace)))));
    this.#forgets += 1;
    const facts = await within(clock, FORGET_LIMIT, phone.facts());
    const others = this.#waiting.filter(({ is }) => is !== "described");
    this.#waiting = [{ is: "forgotten", generation, traces: [...gone], facts }, ...others];
  }

  #begin(effect: Exclude<Effect, Forget>): void {
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
    if (this.#isClosed) {
      return;
    }
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

/** What an event is about: of two that wait about one thing, the later tells all. Nobody was told of the first. */
function subjectOf(event: Event): string {
  switch (event.is) {
    case "signed_in":
    case "signed_out":
      return "person";
    case "paid":
    case "not_paid":
      return "debt";
    case "timer":
      return `timer/${event.timer}`;
    default:
      return event.is;
  }
}

export type { Facts };
