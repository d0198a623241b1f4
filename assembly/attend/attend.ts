/**
 * Attention of query rows over paged keys and values. Bounded: products and sums in f32.
 *
 * out[row] = softmax(softmaxScale · q[row] · Kᵀ, masked) · V; layouts in src/layout.ts (attendParams).
 *
 * Up to BLOCK_ROWS rows (query rows × heads of the group) share one pass over the keys they see, a tile of TILE_KEYS keys at
 * a time: queries times keys, softmax, probabilities times values. Few rows multiply FP8 codes as they are, decoding in
 * registers, keys where they lie in their pages; for many rows the tile is gathered and decoded first. The bits are the same.
 * A side whose heads have several groups of dims is always decoded, times its scales: from there on it is one of f32.
 *
 * Order: tiles and cuts begin at fixed keys (multiples of TILE_KEYS and CUT_KEYS), so what a row adds up, and in which
 * order, depends on the row alone: not on its block, batch, chunk or pages.
 */
import { E4M3FN, E5M2, F32, FourRows, INT8, OneRow } from "../types";
import { finishRow, mergeCut } from "./merge";
import { ROW_BYTES, scratch } from "./memory";
import { addPanel16, addPanel8, addTwoRows, spreadMask, TWO_ROWS_LANES } from "./panel";
import { scaleQueries } from "./query";
import { Block, rowAt, rowOf, rowsOf, rowsPerHead, sees, startBlock, sumsOf } from "./rows";
import { softmaxRow, weigh } from "./softmax";
import {
  anySpecialKey, anySpecialValue, codeBias, codesOf, decodeTile, elementBytes, entryOf, gatherKeys, gatherScales, gatherValues, givenScales, hasKeyScales,
  isDimMajor, pageAt, scaleKeyGroups, scaleValueGroups, valueStride,
} from "./tile";
import {
  AttendParams, BLOCK_ROWS, CUT_KEYS, FORMAT_E4M3FN, FORMAT_E5M2, FORMAT_F16, FORMAT_F32, SCRATCH_BLOCK, SCRATCH_CODES, SCRATCH_CUT_SUMS, SCRATCH_K_SCALES,
  SCRATCH_QUERIES, SCRATCH_SCORES, SCRATCH_SUMS, SCRATCH_V_SCALES, SCRATCH_WEIGHTS, SideParams, TILE_KEYS, WORK_WORDS,
} from "../../build/params";

/** From this many rows on, decoding a tile once is faster than decoding it for every four rows. */
const MANY_ROWS: i32 = ASC_FEATURE_RELAXED_SIMD ? 24 : 12;
/** FP8 values of decoded tiles are left 2^60 too small: far from where factors or products overflow or are denormal. */
const TILE_BIAS = 60;

/** The format in which a side is multiplied. */
@inline
function productFormat(side: SideParams): i32 {
  return side.groupSize != 0 ? FORMAT_F32 : side.format;
}

/** What the other factor of products with a format is scaled by, see query.ts. */
@inline
function biasOf(format: i32, rows: i32): i32 {
  return rows < MANY_ROWS ? codeBias(format) : min(TILE_BIAS, codeBias(format));
}

/** Whether few enough rows multiply codes as they are. */
@inline
function multipliesCodes(format: i32, rows: i32): bool {
  return format < FORMAT_F16 && rows < MANY_ROWS;
}

/** Rows that are multiplied together: fours, and what remains. Three are filled up. */
@inline
function rowsTogether(left: i32): i32 {
  return left > 2 ? min(4, left) : left;
}

/** Scores of 1 … 4 rows against `lanes` keys, whose dims lie `stride` bytes apart. */
function scorePanels<F>(count: i32, queries: usize, dim: i32, keys: usize, stride: usize, lanes: i32, scores: usize): void {
  const bytes: usize = isFloat<F>() ? 4 : 1;
  const end = scores + (<usize>lanes << 2);
  const mask = spreadMask<F>(count);
  if (count > 2) for (; scores < end; scores += 32, keys += 8 * bytes) addPanel8<F, FourRows>(queries, dim, keys, stride, scores, true, mask);
  else if (count == 2) for (; scores < end; scores += TWO_ROWS_LANES << 2, keys += TWO_ROWS_LANES * bytes) addTwoRows<F>(queries, dim, keys, stride, scores, true, mask);
  else for (; scores < end; scores += 64, keys += 16 * bytes) addPanel16<F, OneRow>(queries, dim, keys, stride, scores, true, mask);
}

/**
 * The same against keys from … to − 1 of the tile that begins at key `first`, as they lie in their pages. Sixteen lanes may
 * pass a page's eight: what then is computed of the bytes behind is written over by the next keys, or masked.
 */
function scorePages<F>(p: AttendParams, blocks: usize, kvHead: i32, count: i32, queries: usize, first: i32, from: i32, to: i32, scores: usize): void {
  const k = changetype<SideParams>(p.k);
  let place = (first + from) % p.blockSize;
  let entry = entryOf(p, blocks, first + from);
  for (let key = from; key < to; place = 0, entry += 4) {
    const run = min(p.blockSize - place, to - key);
    scorePanels<F>(count, queries, p.dim, codesOf(p, k, pageAt(p, entry), kvHead, place), k.dimStride, run, scores + (<usize>key << 2));
    key += run;
  }
}

/** The products of 1 … 4 rows of probabilities with `keys` values of `dim` elements, added to their sums. */
function addValues<F>(count: i32, probabilities: usize, keys: i32, tile: usize, elements: i32, dim: i32, sums: usize): void {
  const bytes: usize = isFloat<F>() ? 4 : 1;
  const stride = <usize>elements * bytes;
  const end = sums + (<usize>dim << 2);
  const mask = spreadMask<F>(count);
  if (count > 2) for (; sums < end; sums += 32, tile += 8 * bytes) addPanel8<F, FourRows>(probabilities, keys, tile, stride, sums, false, mask);
  else if (count == 2) for (; sums < end; sums += TWO_ROWS_LANES << 2, tile += TWO_ROWS_LANES * bytes) addTwoRows<F>(probabilities, keys, tile, stride, sums, false, mask);
  else for (; sums < end; sums += 64, tile += 16 * bytes) addPanel16<F, OneRow>(probabilities, keys, tile, stride, sums, false, mask);
}

/**
 * Scores of all rows against the keys of the tile that any row beside them sees.
 * @param tile the keys as f32, or 0: as codes in their pages
 */
function scoreRows(p: AttendParams, blocks: usize, kvHead: i32, first: i32, rows: usize, n: i32, queries: usize, tile: usize): void {
  const format = changetype<SideParams>(p.k).format;
  const scores = scratch(p, SCRATCH_SCORES);
  for (let r = 0; r < n; ) {
    const count = rowsTogether(n - r);
    let from = TILE_KEYS;
    let to = 0;
    for (let i = r; i < r + count; i++) {
      const row = rowAt(rows, i);
      if (row.from >= row.to) continue;
      from = min(from, row.from);
      to = max(to, row.to);
    }
    from &= ~7;
    const at = <usize>r * ROW_BYTES;
    if (from >= to) {
      // None of them sees any.
    } else if (tile != 0) {
      scorePanels<F32>(count, queries + at, p.dim, tile + (<usize>from << 2), TILE_KEYS << 2, to - from, scores + at + (<usize>from << 2));
    } else if (format == FORMAT_E4M3FN) {
      scorePages<E4M3FN>(p, blocks, kvHead, count, queries + at, first, from, to, scores + at);
    } else if (format == FORMAT_E5M2) {
      scorePages<E5M2>(p, blocks, kvHead, count, queries + at, first, from, to, scores + at);
    } else {
      scorePages<INT8>(p, blocks, kvHead, count, queries + at, first, from, to, scores + at);
    }
    r += count;
  }
}

/** Keys from … to − 1 of the tile added to `count` rows of sums, from row r on. */
@inline
function addKeys(p: AttendParams, r: i32, count: i32, from: i32, to: i32, tile: usize, format: i32, stride: i32, sums: usize): void {
  if (from >= to) return;
  const at = <usize>r * ROW_BYTES;
  const probabilities = scratch(p, SCRATCH_SCORES) + at + (<usize>from << 2);
  const values = tile + <usize>(from * stride) * elementBytes(format);
  if (format == FORMAT_F32) addValues<F32>(count, probabilities, to - from, values, stride, p.dim, sums + at);
  else if (format == FORMAT_E4M3FN) addValues<E4M3FN>(count, probabilities, to - from, values, stride, p.dim, sums + at);
  else if (format == FORMAT_E5M2) addValues<E5M2>(count, probabilities, to - from, values, stride, p.dim, sums + at);
  else addValues<INT8>(count, probabilities, to - from, values, stride, p.dim, sums + at);
}

/** A row's sums times a power of two, or whatever it is. */
function scaleSums(sums: usize, bytes: usize, by: f32): void {
  if (by == 1) return;
  const factor = f32x4.splat(by);
  for (let at: usize = 0; at < bytes; at += 16) v128.store(sums + at, f32x4.mul(v128.load(sums + at), factor));
}

/**
 * Probabilities times values. A row's sums take in only keys that it sees: a slot that it does not see may hold NaN, and
 * 0 · NaN would reach them. What rows beside each other all see is multiplied together, the rest for each alone.
 */
function addRows(p: AttendParams, rows: usize, n: i32, tile: usize, format: i32, stride: i32, sums: usize): void {
  const bytes = <usize>p.dim << 2;
  for (let r = 0; r < n; ) {
    const count = rowsTogether(n - r);
    let from = 0;
    let to = TILE_KEYS;
    for (let i = r; i < r + count; i++) {
      const row = rowAt(rows, i);
      from = max(from, row.from);
      to = min(to, row.to);
      if (row.from < row.to) scaleSums(sums + <usize>i * ROW_BYTES, bytes, row.rescale);
    }
    if (from >= to) from = to = TILE_KEYS;
    for (let i = r; i < r + count; i++) {
      const row = rowAt(rows, i);
      addKeys(p, i, 1, row.from, min(row.to, from), tile, format, stride, sums);
    }
    addKeys(p, r, count, from, to, tile, format, stride, sums);
    for (let i = r; i < r + count; i++) {
      const row = rowAt(rows, i);
      addKeys(p, i, 1, max(row.from, to), row.to, tile, format, stride, sums);
      if (row.from < row.to) scaleSums(sums + <usize>i * ROW_BYTES, bytes, row.restore);
    }
    r += count;
  }
}

/**
 * One tile for n rows of one KV head, whose scaled queries and sums lie at `queries` and `sums`.
 * @param kBias what queries are scaled by, and vBias what probabilities
 * @param kCodes keys are multiplied as codes, and vCodes values
 */
function attendTile(
  p: AttendParams, blocks: usize, kvHead: i32, first: i32, from: i32, to: i32, rows: usize, n: i32, queries: usize, sums: usize,
  kBias: i32, vBias: i32, kCodes: bool, vCodes: bool,
): void {
  const k = changetype<SideParams>(p.k);
  const v = changetype<SideParams>(p.v);
  const kScales = scratch(p, SCRATCH_K_SCALES);
  const vScales = scratch(p, SCRATCH_V_SCALES);
  for (let r = 0; r < n; r++) {
    const row = rowAt(rows, r);
    row.from = max(0, row.first - first);
    row.to = min(TILE_KEYS, row.end - first);
  }
  let keys: usize = 0;
  if (!kCodes) {
    gatherKeys(p, blocks, kvHead, first, from, to);
    keys = decodeTile(p, k.format, 0, p.dim * TILE_KEYS, kBias);
    if (k.groupSize != 0) scaleKeyGroups(p, blocks, kvHead, first, from, to, keys);
  }
  if (hasKeyScales(k)) gatherScales(p, k, blocks, kvHead, 0, first, from, to, kScales);
  scoreRows(p, blocks, kvHead, first, rows, n, queries, keys);
  gatherValues(p, blocks, kvHead, first, from, to);
  if (hasKeyScales(v)) gatherScales(p, v, blocks, kvHead, 0, first, from, to, vScales);
  const scores = scratch(p, SCRATCH_SCORES);
  const weights = scratch(p, SCRATCH_WEIGHTS);
  const safe = weigh(vScales, from, to, vBias, weights);
  for (let r = 0; r < n; r++) {
    const row = rowAt(rows, r);
    if (row.from < row.to) softmaxRow(p, row, first, scores + <usize>r * ROW_BYTES, kScales, vScales, weights, vBias, safe);
  }
  const stride = valueStride(v);
  if (vCodes) {
    addRows(p, rows, n, scratch(p, SCRATCH_CODES), v.format, stride, sums);
    return;
  }
  const values = decodeTile(p, v.format, from * stride, (to - from) * stride, vBias);
  if (v.groupSize != 0) scaleValueGroups(p, blocks, kvHead, first, from, to, values);
  addRows(p, rows, n, values, FORMAT_F32, stride, sums);
}

function startCut(rows: usize, n: i32): void {
  for (let r = 0; r < n; r++) {
    const row = rowAt(rows, r);
    row.cutMax = -<f32>Infinity;
    row.cutSum = 0;
  }
}

function fillWithOnes(scales: usize): void {
  for (let key: usize = 0; key < <usize>TILE_KEYS << 2; key += 4) store<f32>(scales + key, 1);
}

/**
 * The block's rows over keys first … end − 1, which begin with a tile and lie in one cut: what they give is left in cutSums.
 * Heads take turns at each tile, because a page holds them one after the other: that is the order in which memory is fast.
 */
export function attendCut(p: AttendParams, block: Block, first: i32, end: i32): void {
  const k = changetype<SideParams>(p.k);
  const v = changetype<SideParams>(p.v);
  const kFormat = productFormat(k);
  const vFormat = productFormat(v);
  const kBias = biasOf(kFormat, block.n);
  const vBias = biasOf(vFormat, block.n);
  const queries = scratch(p, SCRATCH_QUERIES);
  const sums = scratch(p, SCRATCH_CUT_SUMS);
  const step = <usize>rowsPerHead(block.n) * ROW_BYTES;
  for (let head = 0; head < block.heads; head++) {
    const rows = rowsOf(p, block, head);
    scaleQueries(p, rows, block.n, queries + <usize>head * step, kBias, givenScales(k, block.sequence, block.kvHead + head));
    startCut(rows, block.n);
  }
  memory.fill(sums, 0, <usize>block.heads * step);
  if (!hasKeyScales(k)) fillWithOnes(scratch(p, SCRATCH_K_SCALES));
  if (!hasKeyScales(v)) fillWithOnes(scratch(p, SCRATCH_V_SCALES));
  const blocks = block.blocks;
  const kvHead = block.kvHead;
  const heads = block.heads;
  const n = block.n;
  for (let tile = first; tile < end; tile += TILE_KEYS) {
    const from = max(0, block.first - tile);
    const to = min(TILE_KEYS, block.end - tile);
    if (from >= to) continue;
    const kCodes = isDimMajor(k) && multipliesCodes(kFormat, n) && !anySpecialKey(p, blocks, kvHead, heads, tile, from, to);
    const vCodes = multipliesCodes(vFormat, n) && !anySpecialValue(p, blocks, kvHead, heads, tile, from, to);
    for (let head = 0; head < heads; head++) {
      const at = <usize>head * step;
      attendTile(p, blocks, kvHead + head, tile, from, to, rowsOf(p, block, head), n, queries + at, sums + at, kBias, vBias, kCodes, vCodes);
    }
  }
}

/** A block from first key to result. */
export function attendBlock(p: AttendParams, block: Block): void {
  const bytes = <usize>p.dim << 2;
  const first = block.first;
  const end = block.end;
  for (let cut = first - first % CUT_KEYS; cut < end; cut += CUT_KEYS) {
    const cutEnd = min(end, cut + CUT_KEYS);
    attendCut(p, block, max(cut, first - first % TILE_KEYS), cutEnd);
    for (let i = 0; i < block.heads * block.n; i++) {
      const row = rowOf(p, block, i);
      if (sees(row, cut, cutEnd)) mergeCut(row, sumsOf(p, SCRATCH_CUT_SUMS, block, i), sumsOf(p, SCRATCH_SUMS, block, i), bytes);
    }
  }
  for (let i = 0; i < block.heads * block.n; i++) finishRow(p, rowOf(p, block, i), block.sequence, sumsOf(p, SCRATCH_SUMS, block, i));
}

/** All work items, on one thread. */
export function attend(p: AttendParams): void {
  const group = p.queryHeads / p.kvHeads;
  const block = changetype<Block>(scratch(p, SCRATCH_BLOCK));
  for (let item = 0; item < p.items; item++) {
    const count = load<i32>(p.work + <usize>item * (WORK_WORDS << 2), 4) * group;
    for (let firstRow = 0; firstRow < count; firstRow += BLOCK_ROWS) {
      const heads = BLOCK_ROWS / rowsPerHead(min(BLOCK_ROWS, count - firstRow));
      for (let kvHead = 0; kvHead < p.kvHeads; kvHead += heads) {
        startBlock(p, block, item, kvHead, min(heads, p.kvHeads - kvHead), firstRow);
        attendBlock(p, block);
      }
    }
  }
}
