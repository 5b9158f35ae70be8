/** Sync when a push wakes the app, which only sealed texts on Android do; import first, from the app's entry. */

import { BackgroundNotificationTaskResult, registerTaskAsync } from "expo-notifications";
import { defineTask } from "expo-task-manager";

import type { Fastbell } from "./core/fastbell.ts";

const TASK = "fastbell.sync";

/**
 * Call at module scope: the system starts the bundle without a screen, and wants the task to be there.
 *
 * It is an extra, and nothing rests on it. Android wakes an app for data, which sealed texts are, unless it was force-stopped
 * or the phone saves power; for what Firebase shows by itself it does not. On iOS no push of Fastbell's wakes an app. Lines
 * are shown, sealed texts opened and the log is caught up at the next open without it.
 */
export function syncInBackground(fastbell: Fastbell): void {
  defineTask(TASK, async () => {
    const problem = await fastbell.sync();
    return problem === null ? BackgroundNotificationTaskResult.NewData : BackgroundNotificationTaskResult.Failed;
  });
  void registerTaskAsync(TASK).catch(() => undefined); // Expo Go has none
}
