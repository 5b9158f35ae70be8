/** The key for sealed texts: made, kept and forgotten by native code; only its public half comes here. */

import type { Keys } from "../core/ports.ts";

/** The native module of this package, `Fastbell`. */
export interface KeyModule {
  publicKey(): Promise<string>;
  forgetKey(): Promise<void>;
}

/** `module` gives null where the app was built without this package's native part, as in Expo Go. */
export function keysOf(module: () => KeyModule | null): Keys {
  return {
    async publicKey() {
      const native = module();
      if (native === null) {
        throw new Error("sealed texts need a build with the native part of @fastbell/expo; Expo Go has none");
      }
      return native.publicKey();
    },
    forget: async () => module()?.forgetKey(),
  };
}
