import { listened } from "./phone.ts";

export function requireNativeModule() {
  return {
    getDevicePushTokenAsync: async () => "token-1",
    unregisterForNotificationsAsync: async () => undefined,
    addListener: (event: string, listener: (event: never) => void) => listened(event)(listener),
  };
}

export function requireOptionalNativeModule() {
  return { publicKey: async () => "public-key", forgetKey: async () => undefined };
}
