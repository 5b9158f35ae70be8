/**
 * Where the registration is kept: in two places, so that a write that hangs holds up nothing, and undoes nothing if it comes
 * about after a later one. Each write has a number, and the highest counts. The second place is used while a write to the
 * first hangs, and is emptied afterwards.
 */

import type { Clock, Vault } from "./ports.ts";
import { type Saved, TRACES } from "./registration_state.ts";
import { Late, inTime } from "./within.ts";

export const READ_LIMIT = 5_000; // milliseconds
export const WRITE_LIMIT = 5_000; // milliseconds

const NOTHING = ""; // in a vault: nobody wrote it, and nobody can read it

interface Found {
  readonly saved: Saved | null; // null: it cannot be read, or is of a later release
  readonly written: number;
}

export class RegistrationStore {
  readonly #vaults: readonly [Vault, Vault];
  readonly #clock: Clock;
  readonly #busy = new Set<Vault>();
  #written = 0; // the highest number that was given out
  #isSecondUsed = false;

  constructor(vaults: readonly [Vault, Vault], clock: Clock) {
    this.#vaults = vaults;
    this.#clock = clock;
  }

  /**
   * Read what was written last; null where that is nothing, or nothing that can be read. Rejects where a place cannot be read,
   * or not in time. With `isGivenUp` what is in there is lost, provided that it takes writes: a keychain before the first
   * unlock does neither, and what it has is as good as ever. So is what it does not give in time.
   */
  async read(isGivenUp = false): Promise<Saved | null> {
    const [first, second] = this.#vaults;
    const places = await Promise.all([this.#find(first, isGivenUp), this.#find(second, isGivenUp)]);
    this.#isSecondUsed ||= places[1] !== null; // by an earlier process
    const found = places.filter((each) => each !== null);
    this.#written = Math.max(this.#written, ...found.map(({ written }) => written));
    const isLost = found.some(({ saved }) => saved === null); // that may have been the newer one
    const newest = found.reduce<Found | null>((best, each) => (best === null || each.written > best.written ? each : best), null);
    return isLost ? null : (newest?.saved ?? null);
  }

  /**
   * Store it. Rejects where no place takes it, or not in time; then it may be stored all the same. No second place is tried for
   * what is not wanted any more: another may have read what there is by then.
   */
  async write(saved: Saved, isWanted: () => boolean): Promise<void> {
    for (const vault of this.#vaults) {
      if (this.#busy.has(vault) || !isWanted()) {
        continue;
      }
      this.#written += 1;
      try {
        await this.#put(vault, JSON.stringify({ ...saved, written: this.#written }));
      } catch (error) {
        if (error instanceof Late) {
          continue;
        }
        throw error;
      }
      this.#tidy(vault);
      return;
    }
    throw new Late("both places are busy");
  }

  /** The second place holds an older state of somebody, who may have left since. */
  #tidy(written: Vault): void {
    const [, second] = this.#vaults;
    if (written === second) {
      this.#isSecondUsed = true;
    } else if (this.#isSecondUsed && !this.#busy.has(second)) {
      this.#isSecondUsed = false;
      void this.#put(second, NOTHING).catch(() => {
        this.#isSecondUsed = true;
      });
    }
  }

  /** A vault whose write hangs is busy until that write has come to its end. */
  #put(vault: Vault, text: string): Promise<void> {
    const write = async () => vault.write(text);
    this.#busy.add(vault);
    return inTime(this.#clock, WRITE_LIMIT, write().finally(() => this.#busy.delete(vault)));
  }

  async #find(vault: Vault, isGivenUp: boolean): Promise<Found | null> {
    try {
      return foundIn(await inTime(this.#clock, READ_LIMIT, vault.read()));
    } catch (error) {
      if (!isGivenUp || error instanceof Late || this.#busy.has(vault)) {
        throw error;
      }
      await this.#put(vault, NOTHING);
      return { saved: null, written: 0 };
    }
  }
}

function foundIn(text: string | null): Found | null {
  if (text === null || text === NOTHING) {
    return null;
  }
  try {
    const { written = 0, ...saved } = JSON.parse(text) as { written?: unknown };
    return Number.isSafeInteger(written) ? { saved: savedOf(saved), written: written as number } : { saved: null, written: 0 };
  } catch {
    return { saved: null, written: 0 };
  }
}

/** Null for what this release cannot have written. What an earlier one wrote had no numbers. */
function savedOf(stored: unknown): Saved | null {
  const { scheme, installationId, person, owed, toForget } = fieldsOf(stored);
  const isWhole =
    scheme === 1 &&
    typeof installationId === "string" &&
    (person === null || isPerson(person)) &&
    Array.isArray(owed) &&
    owed.every((debt) => typeof fieldsOf(debt)["installationId"] === "string" && typeof fieldsOf(debt)["ticket"] === "string") &&
    Array.isArray(toForget) &&
    toForget.every((trace) => TRACES.includes(trace));
  if (!isWhole) {
    return null;
  }
  const saved = stored as Saved;
  return saved.person === null ? saved : { ...saved, person: { ...saved.person, sequence: saved.person.sequence ?? 0 } };
}

function isPerson(person: unknown): boolean {
  const { userId, ticket, mayBeKnown, sequence, registered, registeredAt, doubted } = fieldsOf(person);
  return (
    typeof userId === "string" &&
    typeof ticket === "string" &&
    typeof mayBeKnown === "boolean" &&
    (sequence === undefined || Number.isSafeInteger(sequence)) &&
    (registered === null || typeof registered === "string") &&
    (registeredAt === null || typeof registeredAt === "number") &&
    (doubted === null || typeof fieldsOf(doubted)["token"] === "string")
  );
}

function fieldsOf(value: unknown): Record<string, unknown> {
  return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
}
