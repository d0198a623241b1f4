/** Where pages of prefixes are kept beyond one cache: in memory, on a disk, on another machine. */
import { describe } from '../formats.js';

/**
 * Keeps values by their keys. A key is 64 hexadecimal digits that name a page's tokens, and all that its contents depend on; a
 * value is that page of all layers, codes and scales, and is checked when it comes back: what is lost, late or wrong costs a
 * recomputation. Values of a key are all alike: it does not matter which is kept.
 */
export interface PageStore {
  /** The value of a key; undefined or null where there is none. */
  get(key: string): Promise<Uint8Array | undefined | null>;
  /** Keeps a value under a key, for as long as it likes. */
  put(key: string, value: Uint8Array): Promise<void>;
  /** Whether there is a value of this key. */
  has(key: string): Promise<boolean>;
}

/** What is used of an unstorage `Storage`. */
export interface RawStorage {
  /** The bytes of a key; null or undefined where there are none. */
  getItemRaw(key: string): Promise<unknown>;
  /** Keeps bytes under a key. */
  setItemRaw(key: string, value: Uint8Array): Promise<void>;
  /** Whether there are bytes of this key. */
  hasItem(key: string): Promise<boolean>;
}

/**
 * Pages in any storage of unstorage: files, Redis, S3, IndexedDB and others through its drivers.
 *
 * ```ts
 * import { createStorage } from 'unstorage';
 * import redis from 'unstorage/drivers/redis';
 * const store = unstoragePages(createStorage({ driver: redis({ url: 'redis://localhost' }) }));
 * ```
 * @param base what keys begin with, as `base:key`
 * @throws TypeError for what is no such storage
 */
export function unstoragePages(storage: RawStorage, base = 'fp8-kv'): PageStore {
  for (const method of ['getItemRaw', 'setItemRaw', 'hasItem'] as const) {
    if (typeof storage?.[method] !== 'function') throw new TypeError(`"storage" expected one of unstorage, got ${describe(storage)} without ${method}`);
  }
  const name = (key: string): string => `${base}:${key}`;
  return {
    async get(key) {
      const value = await storage.getItemRaw(name(key));
      if (value === undefined || value === null) return undefined;
      if (value instanceof ArrayBuffer) return new Uint8Array(value);
      if (value instanceof Uint8Array) return value;
      throw new TypeError(`expected bytes, got ${typeof value}`);
    },
    put: (key, value) => storage.setItemRaw(name(key), value),
    has: (key) => storage.hasItem(name(key)),
  };
}
