/** Attention over keys that lie in several places, recorded: see src/attend-parts.ts. */
import { recordAttention, type GpuAttendCall } from './attend.js';
import type { Gpu } from './gpu.js';
import type { Region } from './memory.js';
import { recordMerge } from './merge-states.js';

interface State {
  readonly out: Region;
  readonly lse: Region;
}

/**
 * Checked parts of the same rows, all of which name the place of the result. They are recorded in their order, and so are
 * the merges: what one layer has left in between, the next one's may write over.
 * @throws RangeError where the parts' rows are not as many, or the device cannot bind their results
 */
export function recordParts(gpu: Gpu, encoder: GPUCommandEncoder, parts: readonly GpuAttendCall[]): void {
  const [first, ...others] = parts;
  if (others.length === 0) return recordAttention(gpu, encoder, first);
  const { totalQ, queryHeads, layout: { headDim }, out, lse } = first;
  for (const part of others) {
    if (part.totalQ !== totalQ || part.queryHeads !== queryHeads || part.layout.headDim !== headDim) {
      throw new RangeError(`"parts" expected the same rows, [${totalQ}, ${queryHeads}, ${headDim}], in each, got [${part.totalQ}, ${part.queryHeads}, ${part.layout.headDim}]`);
    }
  }
  const rows = totalQ * queryHeads;
  const state = (name: 'A' | 'B' | 'C'): State => ({ out: gpu.reserve(`out${name}`, rows * headDim * 4, 'out'), lse: gpu.reserve(`lse${name}`, rows * 4, 'lse') });
  let merged = state('A');
  const next = state('B');
  // A kernel cannot write what it reads.
  let spare = others.length > 1 ? state('C') : merged;
  recordAttention(gpu, encoder, { ...first, ...merged });
  for (const [i, part] of others.entries()) {
    recordAttention(gpu, encoder, { ...part, ...next });
    const to = i === others.length - 1 ? { out, lse } : spare;
    recordMerge(gpu, encoder, { rows, quads: headDim / 4, read: [merged.out, merged.lse, next.out, next.lse], ...to });
    [merged, spare] = [to, merged];
  }
}
