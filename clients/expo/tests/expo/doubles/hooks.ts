/** Puts doubles of the phone's libraries in their place, for tests that import what imports them. Import it first. */

import { registerHooks } from "node:module";

const DOUBLES = new Set([
  "expo",
  "expo-application",
  "expo-crypto",
  "expo/fetch",
  "expo-localization",
  "expo-network",
  "expo-notifications",
  "expo-router",
  "expo-secure-store",
  "react-native",
]);

registerHooks({
  resolve(specifier, context, next) {
    const file = new URL(`./${specifier.replace("/", "-")}.ts`, import.meta.url).href;
    return DOUBLES.has(specifier) ? { url: file, shortCircuit: true } : next(specifier, context);
  },
});

/** A phone's process is ended from outside; here nothing that waits may hold it. */
const plain = globalThis.setTimeout;
globalThis.setTimeout = ((call: () => void, milliseconds?: number) => plain(call, milliseconds).unref()) as typeof setTimeout;
