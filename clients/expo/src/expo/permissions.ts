/** The person's leave to show notifications, and Android's channels, without which it cannot be asked for. */

import type { Permissions } from "../core/ports.ts";
import type { Permission } from "../core/registration.ts";

interface Status {
  readonly status: string;
  readonly ios?: { readonly status: number };
}

interface Channel {
  readonly name: string;
  readonly importance: number;
}

export interface PermissionModule {
  getPermissionsAsync(): Promise<Status>;
  requestPermissionsAsync(): Promise<Status>;
  setNotificationChannelAsync(id: string, channel: Channel): Promise<unknown>;
  readonly AndroidImportance: { readonly HIGH: number; readonly LOW: number };
}

/** What the person reads in Android's settings. */
export interface ChannelNames {
  readonly reminders: string;
  readonly messages: string;
  readonly quiet: string;
}

const IOS_PROVISIONAL = 3;

export function permissionsOf(module: PermissionModule, names: ChannelNames): Permissions {
  return {
    read: async () => permissionOf(await module.getPermissionsAsync()),
    // Android 13 shows no prompt to an app without a channel, and then never again until its data are cleared.
    async ask() {
      await makeChannels(module, names);
      return permissionOf(await module.requestPermissionsAsync());
    },
  };
}

/**
 * Make the channels; repeats change nothing but their names, for their importance is the person's once they exist. On
 * iOS nothing happens. It may resolve before the person has answered a prompt: the permission is read again at each open.
 */
export async function makeChannels(module: PermissionModule, names: ChannelNames): Promise<void> {
  const { HIGH, LOW } = module.AndroidImportance;
  await module.setNotificationChannelAsync("reminders", { name: names.reminders, importance: HIGH });
  await module.setNotificationChannelAsync("messages", { name: names.messages, importance: HIGH });
  await module.setNotificationChannelAsync("quiet", { name: names.quiet, importance: LOW });
}

function permissionOf({ status, ios }: Status): Permission {
  if (ios?.status === IOS_PROVISIONAL) {
    return "provisional";
  }
  return status === "granted" || status === "denied" ? status : "undetermined";
}
