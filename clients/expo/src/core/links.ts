/** Deep links: only the app's own, and only to what a push can be about. */

const UUID = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}";
const TARGET = new RegExp(`^(?:(?:fasting-sessions|conversations)/${UUID}|test-push)$`);

/**
 * The path in the app that a link leads to; "/" for a link that is not followed.
 *
 * `prefixes` are the app's own: its scheme (`fastbell://`) or an https address (`https://fast.example/`).
 */
export function pathOf(url: string, prefixes: readonly string[]): string {
  const prefix = prefixes.find((each) => url.startsWith(each));
  const target = prefix === undefined ? "" : url.slice(prefix.length);
  return TARGET.test(target) ? `/${target}` : "/";
}
