/** The config plugin: `"plugins": ["@fastbell/expo"]`. */

import configPlugins, { type ConfigPlugin } from "expo/config-plugins.js";

import { type PluginOptions, chosen, taken } from "./options.ts";
import { withAndroid } from "./withAndroid.ts";
import { withKeychainGroup } from "./withKeychainGroup.ts";
import { leftBehind, withServiceExtension } from "./withServiceExtension.ts";

const { createRunOncePlugin, withDangerousMod } = configPlugins;

/** `aps-environment` is not ours to set: expo-notifications' plugin does, which runs in every app that has the package. */
const withFastbell: ConfigPlugin<PluginOptions | undefined> = (config, options) => {
  const { sealed, serviceName } = chosen(options);
  const onAndroid = withAndroid(config, { sealed });
  if (!sealed) {
    return withRefusal(onAndroid, (_, root) => leftBehind(root, null));
  }
  const bundleIdentifier = config.ios?.bundleIdentifier;
  if (bundleIdentifier === undefined) {
    return withRefusal(onAndroid, () => "sealed texts need ios.bundleIdentifier, for the extension's name is made of it");
  }
  const grouped = withKeychainGroup(onAndroid, { bundleIdentifier });
  const extended = withServiceExtension(grouped, { bundleIdentifier, serviceName });
  return withRefusal(extended, (target, root) => taken(serviceName, target) ?? leftBehind(root, serviceName));
};

/** Refuse to make the iOS project, before anything of it is written: the plugin added last runs first. Android is left alone. */
function withRefusal(
  config: Parameters<ConfigPlugin>[0],
  why: (target: string, root: string) => string | null,
): Parameters<ConfigPlugin>[0] {
  return withDangerousMod(config, [
    "ios",
    (mod) => {
      const reason = why(mod.modRequest.projectName ?? "", mod.modRequest.platformProjectRoot);
      if (reason !== null) {
        throw new Error(`@fastbell/expo: ${reason}`);
      }
      return mod;
    },
  ]);
}

export default createRunOncePlugin(withFastbell, "@fastbell/expo");
