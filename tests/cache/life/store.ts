/** A page store in memory that says what it was asked. */
import type { PageStore } from '../../../src/cache/page-store.js';

export class MemoryStore implements PageStore {
  readonly values = new Map<string, Uint8Array>();
  /** Answers of `get` since they were last looked at: whether there was a value. */
  answers = new Map<string, boolean>();
  puts = 0;

  async get(key: string): Promise<Uint8Array | undefined> {
    const value = this.values.get(key);
    this.answers.set(key, value !== undefined);
    return value;
  }

  async put(key: string, value: Uint8Array): Promise<void> {
    this.puts++;
    this.values.set(key, value);
  }

  async has(key: string): Promise<boolean> {
    return this.values.has(key);
  }
}
