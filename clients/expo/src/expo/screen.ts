/** The notification list, and how a push shows while the app is in front. */

import { pathOf } from "../core/links.ts";
import type { Screen } from "../core/ports.ts";
import { type NotificationRequest, dataOf, lineOf } from "./content.ts";

interface Notification {
  readonly request: NotificationRequest;
}

interface Behavior {
  readonly shouldShowBanner: boolean;
  readonly shouldShowList: boolean;
  readonly shouldPlaySound: boolean;
  readonly shouldSetBadge: boolean;
}

export interface ListModule {
  getPresentedNotificationsAsync(): Promise<readonly Notification[]>;
  dismissNotificationAsync(identifier: string): Promise<void>;
  dismissAllNotificationsAsync(): Promise<void>;
  setBadgeCountAsync(count: number): Promise<unknown>;
}

export interface HandlerModule {
  setNotificationHandler(handler: { handleNotification(shown: Notification): Promise<Behavior> }): void;
}

export function screenOf(module: ListModule): Screen {
  return {
    async shown() {
      const lines = await module.getPresentedNotificationsAsync();
      return lines.map(({ request }) => ({ identifier: lineOf(request), data: dataOf(request) }));
    },
    dismiss: (identifier) => module.dismissNotificationAsync(identifier),
    async dismissAll() {
      await Promise.all([module.dismissAllNotificationsAsync(), module.setBadgeCountAsync(0)]);
    },
  };
}

/**
 * Show pushes in front, too, but what the person is looking at. Without a handler expo-notifications 57 shows nothing,
 * 58 everything; and it waits three seconds for an answer, so this one asks nobody.
 */
export function showInFront(module: HandlerModule, links: readonly string[], onScreen: () => string | null): void {
  module.setNotificationHandler({
    async handleNotification({ request }) {
      const { url, silent } = (dataOf(request) ?? {}) as { url?: unknown; silent?: unknown };
      const path = typeof url === "string" ? pathOf(url, links) : "/"; // where a link leads that is not followed
      const isSeen = path !== "/" && path === onScreen();
      return {
        shouldShowBanner: !isSeen,
        shouldShowList: !isSeen,
        shouldPlaySound: !isSeen && silent !== "true",
        shouldSetBadge: false,
      };
    },
  });
}
