/** Who uses the phone, as the app said last: known at once, though nothing could be stored of it yet. */

import type { Fastbell, Observable } from "./fastbell.ts";
import { tell } from "./observers.ts";

/** A Fastbell that tells who is signed in; null for nobody, and until the app has said it. */
export interface Personal {
  readonly person: Observable<string | null>;
}

export function personal(fastbell: Fastbell): Fastbell & Personal {
  const observers = new Set<(userId: string | null) => void>();
  let current: string | null = null;
  const said = (userId: string | null) => {
    if (userId !== current) {
      current = userId;
      tell(observers, userId);
    }
  };
  return {
    ...fastbell,
    person: {
      get current() {
        return current;
      },
      subscribe(observer) {
        observers.add(observer);
        return () => observers.delete(observer);
      },
    },
    signedIn(userId) {
      said(userId);
      return fastbell.signedIn(userId);
    },
    signOut() {
      said(null);
      return fastbell.signOut();
    },
  };
}
