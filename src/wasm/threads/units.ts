/** Attention's work in pieces for several threads: by sequence, KV head and block of rows, and where that is too coarse, by cut. */
import type { AttendPlan } from '../../attention.js';
import { BLOCK_ROWS, CUT_KEYS, PARTIAL_WORDS, UNIT_WORDS, WORK_WORDS, type PageLayout, type SideLayout } from '../../layout.js';

/** A block of rows is computed cut by cut where it is more than one part in this many of a thread's share of the work. */
const SHARE_PARTS = 8;
/** Decoding and scaling a tile of a side with groups of dims takes as long as its products with so many rows. */
const GROUPED_ROWS = 2;
/** Bytes that cuts may take to hand on what they give: blocks beyond are left whole. */
const MAX_PARTIAL_BYTES = 2 ** 25;

/** No call has as many splits: each is more than that part of the work. */
export const maxSplits = (threads: number): number => SHARE_PARTS * threads;

export interface Units {
  /** (units, UNIT_WORDS) */
  readonly units: Int32Array;
  /** (splits, UNIT_WORDS) */
  readonly splits: Int32Array;
  readonly partialBytes: number;
  /** Multiplications of q with k and of p with v, about. */
  readonly cost: number;
}

/** Rows of an item that share a pass over the keys, and the keys that any of them sees. */
interface Block {
  readonly item: number;
  readonly firstRow: number;
  readonly rows: number;
  readonly firstCut: number;
  readonly cuts: number;
  /** Scores of one KV head, and what takes as long. */
  readonly scores: number;
}

const isGrouped = ({ groupSize }: SideLayout, headDim: number): boolean => groupSize > 0 && groupSize < headDim;

function blocksOf(plan: AttendPlan, work: Int32Array, { kvHeads, headDim, k, v }: PageLayout): Block[] {
  const group = plan.queryHeads / kvHeads;
  const more = GROUPED_ROWS * [k, v].filter((side) => isGrouped(side, headDim)).length;
  const blocks: Block[] = [];
  for (let item = 0; item * WORK_WORDS < work.length; item++) {
    const [, count, position, keys] = work.subarray(item * WORK_WORDS);
    for (let firstRow = 0; firstRow < count * group; firstRow += BLOCK_ROWS) {
      const rows = Math.min(BLOCK_ROWS, count * group - firstRow);
      const at = position + Math.floor(firstRow / group);
      const lastAt = position + Math.floor((firstRow + rows - 1) / group);
      const first = plan.windowLeft < 0 ? 0 : Math.max(0, at - plan.windowLeft);
      const right = plan.windowRight < 0 ? keys : Math.min(keys, lastAt + plan.windowRight + 1);
      const end = plan.causal ? Math.min(right, lastAt + 1) : right;
      const firstCut = first - (first % CUT_KEYS);
      blocks.push({ item, firstRow, rows, firstCut, cuts: Math.ceil((end - firstCut) / CUT_KEYS), scores: (rows + more) * Math.max(0, end - first) });
    }
  }
  return blocks;
}

/**
 * The units of some work items. Threads take them from the last to the first: a causal prefill's longest come first.
 * @param work (items, WORK_WORDS)
 */
export function unitsOf(plan: AttendPlan, work: Int32Array, layout: PageLayout, threads: number): Units {
  const { kvHeads, headDim } = layout;
  const blocks = blocksOf(plan, work, layout);
  const scores = kvHeads * blocks.reduce((sum, block) => sum + block.scores, 0);
  const rowBytes = 4 * (PARTIAL_WORDS + headDim);
  const isLarge = ({ cuts, scores: own }: Block): boolean => cuts > 1 && own * maxSplits(threads) > scores;
  const pieces = kvHeads * blocks.reduce((sum, block) => sum + (isLarge(block) ? block.cuts : 1), 0);
  // Heads beside each other are read fastest together; but enough pieces must remain for all threads to end together.
  const fewHeads = Math.max(1, Math.floor(pieces / maxSplits(threads)));
  const units: number[] = [];
  const splits: number[] = [];
  let partialBytes = 0;
  for (const block of blocks) {
    const { item, firstRow, rows, firstCut, cuts } = block;
    const headsAtOnce = Math.min(fewHeads, Math.floor(BLOCK_ROWS / (4 * Math.ceil(rows / 4))));
    for (let kvHead = 0; kvHead < kvHeads; kvHead += headsAtOnce) {
      const heads = Math.min(headsAtOnce, kvHeads - kvHead);
      const cutBytes = heads * rows * rowBytes;
      if (!isLarge(block) || partialBytes + cuts * cutBytes > MAX_PARTIAL_BYTES) {
        units.push(item, kvHead, heads, firstRow, 0, 0, 0, 0);
        continue;
      }
      const split = splits.length / UNIT_WORDS;
      splits.push(item, kvHead, heads, firstRow, firstCut, cuts, partialBytes, split);
      for (let cut = 0; cut < cuts; cut++) {
        units.push(item, kvHead, heads, firstRow, firstCut + cut * CUT_KEYS, 1, partialBytes, split);
        partialBytes += cutBytes;
      }
    }
  }
  return { units: Int32Array.from(units), splits: Int32Array.from(splits), partialBytes, cost: 2 * scores * headDim };
}
