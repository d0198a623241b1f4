/** How much memory a cache takes. */
import type { PageGroup } from './groups.js';
import type { StorePlans } from './stores.js';

/** What a cache takes, and what the same tokens would take unquantized. */
export interface MemoryReport {
  /** Bytes of all pages of all layers. */
  readonly bytes: number;
  /** Bytes of the pages that sequences or open steps hold. */
  readonly bytesInUse: number;
  /** Bytes that one more token takes: keys, values and scales of all layers that keep all tokens. */
  readonly bytesPerToken: number;
  /** Bytes that an f32 and an f16 cache of the same capacity would take, without residuals. */
  readonly f32Bytes: number;
  /** The same of an f16 cache. */
  readonly f16Bytes: number;
}

export function memoryOf({ stores }: StorePlans, groups: readonly PageGroup[]): MemoryReport {
  const bytes = { all: 0, inUse: 0, perToken: 0, values: 0 };
  for (const { layout, group, kind } of stores) {
    const { pageCount, blockSize } = groups[group];
    bytes.all += layout.bytes * pageCount;
    bytes.inUse += layout.bytes * (pageCount - groups[group].pool.free);
    if (kind === 'residual') continue;
    if (groups[group].kind === 'all') bytes.perToken += layout.bytes / blockSize;
    bytes.values += 2 * layout.kvHeads * layout.headDim * pageCount * blockSize;
  }
  return { bytes: bytes.all, bytesInUse: bytes.inUse, bytesPerToken: bytes.perToken, f32Bytes: 4 * bytes.values, f16Bytes: 2 * bytes.values };
}
