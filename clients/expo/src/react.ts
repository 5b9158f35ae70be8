/** Fastbell in React: a provider, and hooks that follow it. */

import { createContext, createElement, type ReactNode, useCallback, useContext, useEffect, useRef, useState, useSyncExternalStore } from "react";

import type { Fast, Fastbell, Preferences, PreferencesChange, PushState } from "./core/fastbell.ts";
import type { Outcome, Problem } from "./core/problems.ts";
import type { LogItem } from "./core/log.ts";

const Context = createContext<Fastbell | null>(null);

export function FastbellProvider({ fastbell, children }: { readonly fastbell: Fastbell; readonly children?: ReactNode }) {
  return createElement(Context.Provider, { value: fastbell }, children);
}

export function useFastbell(): Fastbell {
  const fastbell = useContext(Context);
  if (fastbell === null) {
    throw new Error("no FastbellProvider around this component");
  }
  return fastbell;
}

/** What stands between the person and their reminders. */
export function usePushState(): PushState {
  const { push } = useFastbell();
  const kept = useState<{ text: string; state: PushState }>(() => keep(push.current))[0];
  return useSyncExternalStore(push.subscribe, () => {
    const now = keep(push.current); // a new object each time, which React would take for a change
    if (now.text !== kept.text) {
      Object.assign(kept, now);
    }
    return kept.state;
  });
}

/** Call for items of the log, once they are stored. */
export function useItems(onItems: (items: readonly LogItem[]) => void): void {
  const fastbell = useFastbell();
  useEffect(() => fastbell.onItems(onItems), [fastbell, onItems]);
}

/** What a call gave, and how to make it again. */
export interface Read<T> {
  readonly value: T | null; // null until it is read, and where there is none
  readonly problem: Problem | null;
  refresh(): Promise<void>;
}

/** The fast that is going on; read again whenever the log says something. */
export function useCurrentFast(): Read<Fast> {
  const fastbell = useFastbell();
  const { took: _, inTurn: __, ...fast } = useRead<Fast | null>(useCallback(() => fastbell.fasts.current(), [fastbell]));
  useItems(fast.refresh);
  return fast;
}

/** Preferences, how to change them, and the page that has all of them. */
export interface Changeable extends Read<Preferences> {
  /** True once they are changed. What another phone changed meanwhile is read first, so that nothing is overwritten unseen. */
  change(to: PreferencesChange): Promise<boolean>;
  /** A link to the hosted page, for the in-app browser: good once, for minutes. Null, and `problem`, where there is none. */
  pageUrl(): Promise<string | null>;
}

const CHANGED_ELSEWHERE = 412;

/**
 * The person's notification preferences. Changes go one after another, so that two taps in a row are no conflict; after one
 * with another phone, those that were made before it was seen are dropped, too.
 */
export function usePreferences(): Changeable {
  const fastbell = useFastbell();
  const newest = useRef<Preferences | null>(null); // ahead of what React has rendered
  const conflicts = useRef(0);
  const readNewest = useCallback(async () => {
    const found = await fastbell.preferences.read();
    newest.current = found.ok ? found.value : newest.current;
    return found;
  }, [fastbell]);
  const { took, inTurn, ...read } = useRead<Preferences>(readNewest);
  const change = useCallback(
    (to: PreferencesChange) => {
      const seen = conflicts.current;
      return inTurn(async () => {
        if (seen !== conflicts.current) {
          return false;
        }
        const changed = await fastbell.preferences.change(to, newest.current?.rev);
        if (changed.ok) {
          newest.current = changed.value;
        } else if (changed.problem.is === "refused" && changed.problem.status === CHANGED_ELSEWHERE) {
          conflicts.current += 1;
          took(await readNewest());
        }
        took(changed);
        return changed.ok;
      });
    },
    [fastbell, readNewest, took, inTurn],
  );
  const pageUrl = useCallback(async () => {
    const made = await fastbell.preferences.pageUrl();
    if (!made.ok) {
      took(made);
    }
    return made.ok ? made.value : null;
  }, [fastbell, took]);
  return { ...read, change, pageUrl };
}

interface Turns<T> {
  took(outcome: Outcome<T>): void;
  /** Reads and changes one at a time: a slow read never covers a newer change. */
  inTurn<R>(act: () => Promise<R>): Promise<R>;
}

function useRead<T>(read: () => Promise<Outcome<T>>): Read<NonNullable<T>> & Turns<T> {
  const [{ value, problem }, set] = useState<{ value: T | null; problem: Problem | null }>({ value: null, problem: null });
  const turn = useRef<Promise<unknown>>(Promise.resolve());
  const took = useCallback((outcome: Outcome<T>) => {
    set((before) => (outcome.ok ? { value: outcome.value, problem: null } : { ...before, problem: outcome.problem }));
  }, []);
  const inTurn = useCallback(<R,>(act: () => Promise<R>): Promise<R> => {
    const mine = turn.current.then(act);
    turn.current = mine.catch(() => undefined);
    return mine;
  }, []);
  const refresh = useCallback(() => inTurn(async () => took(await read())), [read, took, inTurn]);
  useEffect(() => void refresh(), [refresh]);
  return { value: value as NonNullable<T> | null, problem, refresh, took, inTurn };
}

function keep(state: PushState): { text: string; state: PushState } {
  return { text: JSON.stringify(state), state };
}
