/** What a push carried, wherever expo-notifications puts it. */

export interface NotificationRequest {
  readonly identifier: string;
  readonly content: { readonly data?: unknown };
  readonly trigger: unknown;
}

/**
 * Task, kind and link. On iOS `content.data` holds the payload's member `body` alone, as Expo's own service sends it;
 * ours stand beside `aps`, in the trigger's payload. On Android they are `content.data`.
 */
export function dataOf(request: NotificationRequest): unknown {
  const { payload } = (request.trigger ?? {}) as { payload?: unknown };
  return typeof payload === "object" && payload !== null ? payload : request.content.data;
}

/**
 * The line's name: the collapse id on iOS, the tag on Android. For a line that Android showed without us,
 * expo-notifications makes up an address with the tag in it; by the tag alone it is taken back as well.
 */
export function lineOf(request: NotificationRequest): string {
  const foreign = /^expo-notifications:\/\/foreign_notifications\?(.*)$/.exec(request.identifier)?.[1];
  const query = new URLSearchParams(foreign ?? "");
  return query.get("id") === "0" ? (query.get("tag") ?? request.identifier) : request.identifier;
}
