/** Fastbell, made once and at module scope. */

import { createApi, createFastbell } from "@fastbell/expo";
import { syncInBackground } from "@fastbell/expo/background";
import { openLog } from "@fastbell/expo/sqlite";

import { current } from "./session";

const baseUrl = process.env.EXPO_PUBLIC_FASTBELL_URL ?? "http://127.0.0.1:8000";
const bearer = async () => current()?.bearer ?? null;

export const log = openLog();
export const fastbell = createFastbell({ baseUrl, bearer, sealed: true, store: log });
/** For what Fastbell has no word for: an app's own conversations. */
export const { client } = createApi({ baseUrl, bearer });

syncInBackground(fastbell);

// Who is signed in, said at each start: where the last process died between the two, both sides agree again.
const session = current();
void (session === null ? fastbell.signOut() : fastbell.signedIn(session.userId));
