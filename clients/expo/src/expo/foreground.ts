/** Whether the app is in front. */

import type { Foreground } from "../core/ports.ts";

type Status = "active" | "background" | "inactive" | "unknown" | "extension";

export interface AppStateModule {
  readonly currentState: Status | null;
  addEventListener(type: "change", listener: (status: Status) => void): { remove(): void };
}

/** "inactive" is a glance at the control centre or a system prompt: the app stays in front. */
export function foregroundOf(module: AppStateModule): Foreground {
  let isActive = module.currentState !== "background";
  return {
    get isActive() {
      return isActive;
    },
    observe(observer) {
      const listening = module.addEventListener("change", (status) => {
        if (status === "active" || status === "background") {
          isActive = status === "active";
          observer(isActive); // "active" also after a prompt, so that the answer to it is read
        }
      });
      return () => listening.remove();
    },
  };
}
