/**
 * Operations in the order in which they were called, where some take a while. What finds nothing before it is done at once.
 */
export class Queue {
  /** Settles when all before has ended; undefined where there is nothing. */
  #last: Promise<void> | undefined;

  /** True where an operation would have to wait. */
  get busy(): boolean {
    return this.#last !== undefined;
  }

  /** @returns what the operation gives, or throws */
  run<T>(operation: () => T | Promise<T>): Promise<T> {
    if (this.#last) return this.#enqueue(this.#last.then(operation));
    try {
      const result = operation();
      return result instanceof Promise ? this.#enqueue(result) : Promise.resolve(result);
    } catch (error) {
      return Promise.reject(error as Error);
    }
  }

  /** For an operation that gives nothing and does not fail. */
  later(operation: () => void): void {
    if (this.#last) void this.#enqueue(this.#last.then(operation));
    else operation();
  }

  #enqueue<T>(operation: Promise<T>): Promise<T> {
    const ended = (): void => {
      if (this.#last === last) this.#last = undefined;
    };
    const last = operation.then(ended, ended);
    this.#last = last;
    return operation;
  }
}
