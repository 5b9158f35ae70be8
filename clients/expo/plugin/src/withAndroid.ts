/** Android: the channel of what Firebase shows by itself, and the service that opens sealed texts. */

import configPlugins, { type ConfigPlugin } from "expo/config-plugins.js";

const { AndroidConfig, withAndroidManifest, withFinalizedMod } = configPlugins;
const { addMetaDataItemToMainApplication, getMainApplicationMetaDataValue, getMainApplicationOrThrow } = AndroidConfig.Manifest;
const { readAndroidManifestAsync, writeAndroidManifestAsync } = AndroidConfig.Manifest;

const DEFAULT_CHANNEL = "com.google.firebase.messaging.default_notification_channel_id";
const SERVICE = "fastbell.expo.FastbellMessagingService";

export const withAndroid: ConfigPlugin<{ sealed: boolean }> = (config, { sealed }) =>
  withDefaultChannel(
    withAndroidManifest(config, (mod) => {
      const application = getMainApplicationOrThrow(mod.modResults);
      const services = (application.service ?? []).filter((each) => each.$["android:name"] !== SERVICE);
      application.service = sealed ? [...services, service()] : services;
      return mod;
    }),
  );

/**
 * Without it Firebase makes a channel of its own, "Miscellaneous", of middling importance. At the very end, for the
 * plugin of expo-notifications takes it away where the app names none to it, and may run after ours.
 */
const withDefaultChannel: ConfigPlugin = (config) =>
  withFinalizedMod(config, [
    "android",
    async (mod) => {
      const path = await AndroidConfig.Paths.getAndroidManifestAsync(mod.modRequest.projectRoot);
      const manifest = await readAndroidManifestAsync(path);
      if (getMainApplicationMetaDataValue(manifest, DEFAULT_CHANNEL) === null) {
        addMetaDataItemToMainApplication(getMainApplicationOrThrow(manifest), DEFAULT_CHANNEL, "reminders");
        await writeAndroidManifestAsync(path, manifest);
      }
      return mod;
    },
  ]);

/** Comes before expo-notifications' own service, which has priority -1, and is it but for sealed texts. */
function service() {
  return {
    $: { "android:name": SERVICE, "android:exported": "false" as const },
    "intent-filter": [{ action: [{ $: { "android:name": "com.google.firebase.MESSAGING_EVENT" } }] }],
  };
}
