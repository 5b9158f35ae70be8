/** The ports of the core on a real phone. The one file that imports the libraries behind them. */

import { requireNativeModule, requireOptionalNativeModule } from "expo";
import * as Application from "expo-application";
import * as Crypto from "expo-crypto";
import { fetch } from "expo/fetch";
import { getCalendars, getLocales } from "expo-localization";
import * as Network from "expo-network";
import * as Notifications from "expo-notifications";
import * as SecureStore from "expo-secure-store";
import { AppState, Platform, Settings } from "react-native";

import type { Ports } from "../core/ports.ts";
import type { DeviceToken } from "../core/registration.ts";
import { clock } from "./clock.ts";
import { foregroundOf } from "./foreground.ts";
import { type KeyModule, keysOf } from "./keys.ts";
import { networkOf } from "./network.ts";
import { type ChannelNames, makeChannels, permissionsOf } from "./permissions.ts";
import { type TokenModule, pushOf } from "./push.ts";
import { randomOf } from "./random.ts";
import { markInstalled, wasReinstalled } from "./reinstall.ts";
import { screenOf, showInFront } from "./screen.ts";
import { secureOf } from "./secure.ts";
import { systemOf } from "./system.ts";
import { tapsOf } from "./taps.ts";

export interface PhoneOptions {
  readonly channels: ChannelNames;
  readonly links: readonly string[];
  /** The path that the person is looking at: pushes that lead there show nothing. */
  onScreen(): string | null;
}

const secure = secureOf(SecureStore); // one for all, as the keychain is

/** Call once, at module scope, so that no tap is missed. */
export function expoPorts({ channels, links, onScreen }: PhoneOptions): Ports {
  const permissionModule = Notifications;
  showInFront(Notifications, links, onScreen);
  void makeChannels(permissionModule, channels).catch(() => undefined); // a push may come before anybody is asked
  return {
    push: pushOf({ module: requireNativeModule<TokenModule>("ExpoPushTokenManager"), os: os(), environment }),
    secure,
    clock,
    random: randomOf(Crypto),
    network: networkOf(Network),
    foreground: foregroundOf(AppState),
    system: systemOf({
      locales: getLocales,
      calendars: getCalendars,
      appVersion: Application.nativeApplicationVersion,
      osVersion: Platform.OS === "android" ? Platform.constants.Release : String(Platform.Version),
    }),
    permissions: permissionsOf(permissionModule, channels),
    keys: keysOf(() => requireOptionalNativeModule<KeyModule>("Fastbell")),
    screen: screenOf(Notifications),
    taps: tapsOf(Notifications),
    fetch: fetch as unknown as typeof globalThis.fetch, // streams its answers, which React Native's own does not
  };
}

/** Whether the keychain speaks of a person from before the app was installed. */
export const reinstall = {
  isNew: (): boolean => wasReinstalled(os(), Settings),
  mark: (): void => markInstalled(os(), Settings),
};

function os(): "ios" | "android" {
  if (Platform.OS !== "ios" && Platform.OS !== "android") {
    throw new Error(`@fastbell/expo runs on iOS and Android, not on ${Platform.OS}`);
  }
  return Platform.OS;
}

/** From the app's own profile; apps from the App Store have none, and simulators neither. */
async function environment(): Promise<DeviceToken["environment"]> {
  const service = await Application.getIosPushNotificationServiceEnvironmentAsync();
  if (service !== null) {
    return service === "development" ? "sandbox" : "production";
  }
  const release = await Application.getIosApplicationReleaseTypeAsync();
  return release === Application.ApplicationReleaseType.SIMULATOR ? "sandbox" : "production";
}
