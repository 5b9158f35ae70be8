/** Taps: those that a listener hears, and the one that started the app before there was a listener. */

import type { Taps } from "../core/ports.ts";
import { type NotificationRequest, dataOf } from "./content.ts";

interface Response {
  readonly notification: { readonly request: NotificationRequest };
}

export interface TapModule {
  addNotificationResponseReceivedListener(listener: (response: Response) => void): { remove(): void };
  getLastNotificationResponse(): Response | null;
  clearLastNotificationResponse(): void;
}

const MOST_WAITING = 10;

/**
 * Call at module scope: a listener that is added in an effect misses the tap of a cold start. The last response is read
 * as well, since the listener may still have come too late, and cleared once somebody has it: else it would navigate again
 * at the next start. That both tell of one tap is no harm, for openings are taken once by their task's id.
 */
export function tapsOf(module: TapModule): Taps {
  const waiting: unknown[] = [];
  let tell: ((data: unknown) => void) | null = null;
  module.addNotificationResponseReceivedListener((response) => {
    const data = dataOf(response.notification.request);
    if (tell === null) {
      waiting.splice(0, waiting.length - MOST_WAITING + 1);
      waiting.push(data);
    } else {
      tell(data);
    }
  });
  return {
    observe(onTap) {
      tell = onTap;
      waiting.splice(0).forEach(onTap);
      const last = module.getLastNotificationResponse();
      if (last !== null) {
        onTap(dataOf(last.notification.request));
        module.clearLastNotificationResponse();
      }
      return () => {
        tell = null;
      };
    },
  };
}
