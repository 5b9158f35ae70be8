/** The device token, from the native module itself. */

import type { Ports } from "../core/ports.ts";
import type { DeviceToken } from "../core/registration.ts";

/** The native module behind expo-notifications' token functions, `ExpoPushTokenManager`. */
export interface TokenModule {
  getDevicePushTokenAsync?(): Promise<string>;
  unregisterForNotificationsAsync?(): Promise<void>;
  addListener(event: "onDevicePushToken", listener: (event: { devicePushToken: string }) => void): { remove(): void };
}

export interface PushEnds {
  readonly module: TokenModule;
  readonly os: "ios" | "android";
  /** Which of Apple's services made the token; asked on iOS only. */
  environment(): Promise<DeviceToken["environment"]>;
}

const REPLACED = "E_PROMISE_REPLACED";
const LISTEN_FOR = 30_000; // milliseconds

export function pushOf({ module, os, environment }: PushEnds): Ports["push"] {
  async function named(token: string): Promise<DeviceToken> {
    return os === "ios"
      ? { provider: "apns", token, environment: await environment() }
      : { provider: "fcm", token, environment: "production" };
  }

  return {
    // Not expo-notifications' getDevicePushTokenAsync: it keeps its promise until it succeeds, so that after one failure
    // each later call fails the same way until the app is restarted. The module below it has no such memory.
    async fetchToken() {
      if (module.getDevicePushTokenAsync === undefined) {
        throw new Error("this build has no push notifications");
      }
      try {
        return await named(await module.getDevicePushTokenAsync());
      } catch (error) {
        if ((error as { code?: unknown } | null)?.code !== REPLACED) {
          throw error;
        }
        return named(await nextToken(module)); // another fetch took ours over; the token goes to the listener
      }
    },
    // Android would have to ask Google, and without a network may do so minutes later: it would then take the next
    // person's token away. There the sign-out ticket is all; iOS unregisters on the phone alone.
    async unregister() {
      if (os === "ios") {
        await module.unregisterForNotificationsAsync?.();
      }
    },
    // Every fetch fires this, too, so nothing here may fetch. And it is not enough: a token that rotates while no
    // JavaScript runs is lost with the process, hence the fetch at every open.
    observe(onToken) {
      const listening = module.addListener("onDevicePushToken", (event) => {
        void named(event.devicePushToken).then(onToken, () => undefined);
      });
      return () => listening.remove();
    },
  };
}

function nextToken(module: TokenModule): Promise<string> {
  return new Promise((resolve, reject) => {
    const giveUp = setTimeout(() => {
      listening.remove();
      reject(new Error("another fetch took this one over, and no token came"));
    }, LISTEN_FOR);
    const listening = module.addListener("onDevicePushToken", (event) => {
      clearTimeout(giveUp);
      listening.remove();
      resolve(event.devicePushToken);
    });
  });
}
