/** Telling observers, which are the app's: one that throws keeps nothing from the others, nor from us. */

export function tell<T>(observers: Iterable<(value: T) => void>, value: T): void {
  for (const observer of observers) {
    try {
      observer(value);
    } catch (error) {
      console.error("Fastbell: an observer of the app threw", error);
    }
  }
}
