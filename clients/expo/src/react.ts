/** Fastbell in React: a provider, and hooks that follow it. */

import { createContext, createElement, type ReactNode, useCallback, useContext, useEffect, useRef, useState, useSyncExternalStore } from "react";

import type { Fast, Preferences, PreferencesChange, PushState } from "./core/fastbell.ts";
import type { Outcome, Problem } from "./core/problems.ts";
import type { LogItem } from "./core/log.ts";
import type { PhoneFastbell } from "./index.ts";

const Context = createContext<PhoneFastbell | null>(null);

export function FastbellProvider({ fastbell, children }: { readonly fastbell: PhoneFastbell; readonly children?: ReactNode }) {
  return createElement(Context.Provider, { value: fastbell }, children);
}

export function useFastbell(): PhoneFastbell {
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

/** What a call gave for the person who is signed in, and how to make it again. It is made anew for another person. */
export interface Read<T> {
  readonly value: T | null; // null until it is read, where there is none, and where nobody is signed in
  readonly problem: Problem | null;
  /** Read again. Any number of calls while one waits are one. */
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
  const newest = useRef<{ of: Person; value: Preferences } | null>(null); // ahead of what React has rendered
  const conflicts = useRef(0);
  const readNewest = useCallback(
    async (of: Person) => {
      const found = await fastbell.preferences.read();
      newest.current = found.ok && of === fastbell.person.current ? { of, value: found.value } : newest.current;
      return found;
    },
    [fastbell],
  );
  const { took, inTurn, ...read } = useRead<Preferences>(readNewest);
  const change = useCallback(
    (to: PreferencesChange) => {
      const seen = conflicts.current;
      return inTurn(async (of) => {
        if (seen !== conflicts.current || of !== fastbell.person.current) {
          return false;
        }
        const changed = await fastbell.preferences.change(to, newest.current?.of === of ? newest.current.value.rev : undefined);
        if (of !== fastbell.person.current) {
          return changed.ok;
        }
        if (changed.ok) {
          newest.current = { of, value: changed.value };
        } else if (changed.problem.is === "refused" && changed.problem.status === CHANGED_ELSEWHERE) {
          conflicts.current += 1;
          took(of, await readNewest(of));
        }
        took(of, changed);
        return changed.ok;
      });
    },
    [fastbell, readNewest, took, inTurn],
  );
  const pageUrl = useCallback(async () => {
    const of = fastbell.person.current;
    const made = await fastbell.preferences.pageUrl();
    if (!made.ok) {
      took(of, made);
    }
    return made.ok && of === fastbell.person.current ? made.value : null; // it opens the preferences of whoever asked
  }, [fastbell, took]);
  return { ...read, change, pageUrl };
}

type Person = string | null;

interface Shown<T> {
  readonly of: Person;
  readonly value: T | null;
  readonly problem: Problem | null;
}

interface Turns<T> {
  /** Show what a call for somebody gave, unless somebody else has signed in meanwhile. */
  took(of: Person, outcome: Outcome<T>): void;
  /** One person's reads and changes one at a time: a slow read never covers a newer change. */
  inTurn<R>(act: (of: Person) => Promise<R>): Promise<R>;
}

interface Queue {
  readonly of: Person;
  last: Promise<unknown>;
  waiting: Promise<void> | null; // a read that has not begun
}

function useRead<T>(read: (of: Person) => Promise<Outcome<T>>): Read<NonNullable<T>> & Turns<T> {
  const { person } = useFastbell();
  const now = useSyncExternalStore(person.subscribe, () => person.current);
  const [kept, set] = useState<Shown<T>>(nothingOf(now));
  const queue = useRef<Queue>(queueOf(now));
  const mine = useCallback(() => {
    if (queue.current.of !== person.current) {
      queue.current = queueOf(person.current); // nobody waits for what another person began
    }
    return queue.current;
  }, [person]);
  const took = useCallback(
    (of: Person, outcome: Outcome<T>) => {
      if (of === person.current) {
        set((before) =>
          outcome.ok
            ? { of, value: outcome.value, problem: null }
            : { ...(before.of === of ? before : nothingOf(of)), problem: outcome.problem },
        );
      }
    },
    [person],
  );
  const inTurn = useCallback(
    <R,>(act: (of: Person) => Promise<R>): Promise<R> => {
      const turns = mine();
      const turn = turns.last.then(() => act(turns.of));
      turns.last = turn.catch(() => undefined);
      return turn;
    },
    [mine],
  );
  const refresh = useCallback(() => {
    const turns = mine();
    turns.waiting ??= inTurn(async (of) => {
      turns.waiting = null;
      if (of !== null && of === person.current) {
        took(of, await read(of));
      }
    });
    return turns.waiting;
  }, [person, mine, read, took, inTurn]);
  useEffect(() => {
    if (now !== null) {
      void refresh();
    }
  }, [refresh, now]);
  const { value, problem } = kept.of === now ? kept : nothingOf(now);
  return { value: value as NonNullable<T> | null, problem, refresh, took, inTurn };
}

function nothingOf(of: Person): Shown<never> {
  return { of, value: null, problem: null };
}

function queueOf(of: Person): Queue {
  return { of, last: Promise.resolve(), waiting: null };
}

function keep(state: PushState): { text: string; state: PushState } {
  return { text: JSON.stringify(state), state };
}
