/** Small secrets, in the keychain or behind Android's key store; never in a backup that another phone can read. */

import type { Secure } from "../core/ports.ts";

export interface SecureStore {
  readonly AFTER_FIRST_UNLOCK_THIS_DEVICE_ONLY: number;
  getItemAsync(key: string, options?: { keychainAccessible?: number }): Promise<string | null>;
  setItemAsync(key: string, value: string, options?: { keychainAccessible?: number }): Promise<void>;
}

export function secureOf(store: SecureStore): Secure {
  // A stricter class fails on a locked phone ("User interaction is not allowed"); a laxer one travels with a backup.
  const options = { keychainAccessible: store.AFTER_FIRST_UNLOCK_THIS_DEVICE_ONLY };
  return {
    vault: (name) => ({
      read: () => store.getItemAsync(name, options),
      write: (value) => store.setItemAsync(name, value, options),
    }),
  };
}
