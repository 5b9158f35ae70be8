/** Who is signed in: a bearer token that an app would get from its own sign-in, and here is pasted. */

import * as SecureStore from "expo-secure-store";
import { useSyncExternalStore } from "react";

export interface Session {
  readonly userId: string;
  readonly bearer: string;
}

const KEY = "example.bearer";
const observers = new Set<() => void>();
let session: Session | null = read(SecureStore.getItem(KEY));

export function current(): Session | null {
  return session;
}

/** Null for a text that is no token. */
export async function enter(bearer: string): Promise<Session | null> {
  const entered = read(bearer.trim());
  if (entered !== null) {
    await SecureStore.setItemAsync(KEY, entered.bearer);
    change(entered);
  }
  return entered;
}

export async function leave(): Promise<void> {
  await SecureStore.deleteItemAsync(KEY);
  change(null);
}

export function useSession(): Session | null {
  return useSyncExternalStore((observer) => {
    observers.add(observer);
    return () => observers.delete(observer);
  }, current);
}

function change(next: Session | null): void {
  session = next;
  observers.forEach((observer) => observer());
}

function read(bearer: string | null): Session | null {
  try {
    const claims = bearer?.split(".")[1]?.replaceAll("-", "+").replaceAll("_", "/");
    const { sub } = JSON.parse(atob(claims ?? "")) as { sub?: unknown };
    return bearer !== null && typeof sub === "string" ? { userId: sub, bearer } : null;
  } catch {
    return null;
  }
}
