/** The phone that the doubles of this folder speak of. */

export const phone = {
  secrets: new Map<string, string>(),
  isLocked: false, // the keychain takes no writes
  settings: new Map<string, unknown>(),
  channels: [] as string[],
  listeners: new Map<string, (event: never) => void>(),
  requests: [] as { method: string; path: string; body: Record<string, unknown> | null }[],
  dismissedAll: 0,
  handler: null as { handleNotification(shown: object): Promise<{ shouldShowBanner: boolean }> } | null,
};

export function listened(event: string) {
  return (listener: (event: never) => void) => {
    phone.listeners.set(event, listener);
    return { remove: () => void phone.listeners.delete(event) };
  };
}
