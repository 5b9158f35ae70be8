/** Secrets and chance. */

import { bytesToHex } from "@noble/hashes/utils.js";

import type { Random } from "../core/ports.ts";

export interface Crypto {
  randomUUID(): string;
  getRandomBytes(count: number): Uint8Array;
}

const TICKET_BYTES = 32;

export function randomOf(crypto: Crypto): Random {
  return {
    uuid: () => crypto.randomUUID().toLowerCase(),
    ticket: () => bytesToHex(crypto.getRandomBytes(TICKET_BYTES)),
    chance: () => Math.random(),
  };
}
