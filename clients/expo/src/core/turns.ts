/** One after another: what is done in turn never overlaps, and what fails holds up nobody. */

export class Turns {
  #last: Promise<unknown> = Promise.resolve();

  /** Do it once all that was asked for before has come to its end; gives what it gives, or rejects as it does. */
  take<T>(act: () => Promise<T> | T): Promise<T> {
    const mine = this.#last.then(act);
    this.#last = mine.catch(() => undefined);
    return mine;
  }
}
