/** Attention on WebAssembly: a call's rows go through working memory, in parts where there are many. */
import { newResult, partsOf, planAttention, type AttendPlan, type WorkPart } from '../attention.js';
import type { AttendCall, AttendResult, OutArray, OutDtype } from '../backend.js';
import { bytesOf, floatDtypes, formats } from '../formats.js';
import { align16, attendParams, attendScratch, paramWriter, sideParams, WORK_WORDS, type SideLayout } from '../layout.js';
import type { GivenScales } from '../scale.js';
import type { Kernels } from './kernels.js';
import { carve, Scratch, type WasmMemory } from './memory.js';
import type { PageBytes } from './pages.js';
import { unitsOf, type Units } from './threads/units.js';

const writer = paramWriter(attendParams);
const sideWriter = paramWriter(sideParams);
/** Bytes from one thread's arguments to the next's. */
export const PARAMS_STRIDE = writer.bytes;

/** Bytes of q, as f32, that one part of a call holds: bounds the working memory of long prefills. */
const PART_BYTES = 2 ** 24;
/** Bytes from one thread's working memory to the next's: what one writes is in no cache line of the other. */
const SCRATCH_STRIDE = align16(attendScratch.bytes) + 128;

const sum = (sizes: readonly number[]): number => sizes.reduce((total, bytes) => total + align16(bytes), 0);

const itemsOf = ({ work }: AttendPlan, { first, items }: WorkPart): Int32Array => work.subarray(first * WORK_WORDS, (first + items) * WORK_WORDS);

/** @param given where the given scales are */
function writeSide(view: DataView, at: number, side: SideLayout, headDim: number, { sequenceStride, headStride, dimStride }: GivenScales, given: number): void {
  sideWriter.write(view, at, {
    format: formats[side.format].id,
    codes: side.codes,
    headStride: side.headStride,
    tokenStride: side.tokenStride,
    dimStride: side.dimStride,
    scales: side.scales,
    scaleHeadStride: side.scaleHeadStride,
    groupSize: side.groupSize < headDim ? side.groupSize : 0,
    scaleGroupStride: side.scaleGroupStride,
    given,
    givenSequenceStride: 4 * sequenceStride,
    givenHeadStride: 4 * headStride,
    perChannel: dimStride,
  });
}

/** A part of a call. */
export interface Part extends WorkPart {
  /** How it is divided among threads; undefined where one does it all. */
  readonly units: Units | undefined;
  /** Bytes of what it needs in working memory, in the order in which it is laid out. */
  readonly sizes: readonly number[];
}

/** A checked call whose results have a place, and whose parts fit into memory. */
export interface OpenCall<D extends OutDtype = OutDtype> {
  readonly call: AttendCall<D>;
  readonly pages: PageBytes;
  readonly plan: AttendPlan;
  readonly parts: readonly Part[];
  /** Where results are put. Not where they belong, if a later part must still find its q there. */
  readonly out: OutArray<D>;
  readonly lse: Float32Array;
  readonly result: AttendResult<D>;
}

/** A part in working memory. */
interface LaidOut {
  /** Address of the first thread's arguments; the others' follow, PARAMS_STRIDE bytes on each. */
  readonly params: number;
  /** Takes the results out, once they are there. */
  collect(): void;
}

/** What attention takes in and gives back. Several calls may be open; only one at a time has a part in working memory. */
export class AttendMemory {
  readonly #memory: WasmMemory;
  readonly #kernels: Kernels;
  readonly #threads: number;
  #scratch: Scratch;

  constructor(memory: WasmMemory, kernels: Kernels, threads: number) {
    this.#memory = memory;
    this.#kernels = kernels;
    this.#threads = threads;
    this.#scratch = new Scratch(memory, 'working memory');
  }

  /** Leaves the working memory to who may still write to it, for good. */
  abandon(): void {
    this.#scratch = new Scratch(this.#memory, 'working memory');
  }

  /**
   * Checks a call, and makes sure of its memory before any result is written.
   * @param leastCost a part of less is not divided among threads
   * @throws TypeError or RangeError naming what does not fit
   */
  open<D extends OutDtype>(call: AttendCall<D>, pages: PageBytes, leastCost = 0): OpenCall<D> {
    const { headDim } = pages.layout;
    const rowsAtOnce = (queryHeads: number): number => Math.max(1, Math.floor(PART_BYTES / (queryHeads * headDim * 4)));
    const plan = planAttention(call, rowsAtOnce);
    const parts = partsOf(plan.work, rowsAtOnce(plan.queryHeads)).map((part): Part => {
      const { first, items, rows } = part;
      const divided = this.#threads === 1 ? undefined : unitsOf(plan, itemsOf(plan, part), pages.layout, this.#threads);
      const units = divided && divided.cost >= leastCost ? divided : undefined;
      return { first, items, rows, units, sizes: this.#sizes(plan, headDim, rows, units) };
    });
    this.#scratch.reserve(Math.max(0, ...parts.map(({ sizes }) => sum(sizes))));
    const result: AttendResult<D> = {
      out: call.out ?? (newResult(plan.outDtype, plan.totalQ * plan.queryHeads * headDim) as OutArray<D>),
      lse: call.lse ?? new Float32Array(plan.totalQ * plan.queryHeads),
    };
    const inputs = [call.q, plan.blockTable, plan.sinks, plan.alibiSlopes, plan.kScale.values, plan.vScale.values];
    const apart = parts.length > 1 && inputs.some((input) => input && (input.buffer === result.out.buffer || input.buffer === result.lse.buffer));
    const { out, lse } = apart ? { out: newResult(plan.outDtype, result.out.length) as OutArray<D>, lse: new Float32Array(result.lse.length) } : result;
    return { call, pages, plan, parts, out, lse, result };
  }

  /** {@link Part.sizes} of so many rows. */
  #sizes({ work, queryHeads, blockTable, kScale, vScale, dtype }: AttendPlan, headDim: number, rows: number, units: Units | undefined): number[] {
    const values = rows * queryHeads * headDim;
    const threads = units ? this.#threads : 1;
    return [
      threads * PARAMS_STRIDE, sideWriter.bytes, sideWriter.bytes, work.byteLength, values * 4, values * 4, rows * queryHeads * 4,
      blockTable.byteLength, queryHeads * 4, queryHeads * 4, kScale.values.byteLength, vScale.values.byteLength, threads * SCRATCH_STRIDE,
      dtype === 'f32' ? 0 : values * floatDtypes[dtype].bytes,
      units?.units.byteLength ?? 0, units?.splits.byteLength ?? 0, units?.partialBytes ?? 0,
    ];
  }

  /** Lays out a part: its rows, tables, and the arguments of each thread. */
  layOut({ call, pages, plan, out, lse }: OpenCall, part: Part): LaidOut {
    const { layout, address } = pages;
    const { k, v, headDim } = layout;
    const rowFloats = plan.queryHeads * headDim;
    const floats = part.rows * rowFloats;
    const { units, sizes } = part;
    const place = carve(this.#scratch.reserve(sum(sizes)));
    const [params, kAt, vAt, work, q, outAt, lseAt, blockTable, sinks, alibiSlopes, kGiven, vGiven, scratch, narrow, unitsAt, splits, partials] = sizes.map(place);
    const { u8, i32, f32, view } = this.#memory;
    const items = itemsOf(plan, part);
    const firstRow = items[0];
    i32.set(items, work >>> 2);
    // The kernel counts rows from the first that it is given.
    for (let item = 0; item < part.items; item++) i32[(work >>> 2) + item * WORK_WORDS] -= firstRow;
    const widens = plan.dtype !== 'f32';
    const rows = part.rows === plan.totalQ ? call.q : call.q.subarray(firstRow * rowFloats, firstRow * rowFloats + floats);
    u8.set(bytesOf(rows), widens ? narrow : q);
    if (widens) this.#kernels.widen(narrow, floatDtypes[plan.dtype].id, floats, q);
    i32.set(plan.blockTable, blockTable >>> 2);
    if (plan.sinks) f32.set(plan.sinks, sinks >>> 2);
    if (plan.alibiSlopes) f32.set(plan.alibiSlopes, alibiSlopes >>> 2);
    f32.set(plan.kScale.values, kGiven >>> 2);
    f32.set(plan.vScale.values, vGiven >>> 2);
    if (units) {
      i32.set(units.units, unitsAt >>> 2);
      i32.set(units.splits, splits >>> 2);
    }
    writeSide(view, kAt, k, headDim, plan.kScale, kGiven);
    writeSide(view, vAt, v, headDim, plan.vScale, vGiven);
    const values = {
      work,
      items: part.items,
      q,
      out: outAt,
      lse: lseAt,
      queryHeads: plan.queryHeads,
      kvHeads: layout.kvHeads,
      dim: headDim,
      blockTable,
      maxBlocks: plan.maxBlocks,
      pages: address,
      pageBytes: layout.bytes,
      blockSize: layout.blockSize,
      k: kAt,
      v: vAt,
      softmaxScale: plan.softmaxScale,
      softcap: plan.softcap,
      causal: plan.causal ? 1 : 0,
      windowLeft: plan.windowLeft,
      windowRight: plan.windowRight,
      sinks: plan.sinks ? sinks : 0,
      alibiSlopes: plan.alibiSlopes ? alibiSlopes : 0,
      scratch,
      units: unitsAt,
      splits,
      partials,
    };
    for (let thread = 0; thread < (units ? this.#threads : 1); thread++) {
      values.scratch = scratch + thread * SCRATCH_STRIDE;
      writer.write(view, params + thread * PARAMS_STRIDE, values);
    }
    const heads = part.rows * plan.queryHeads;
    return {
      params,
      collect: () => {
        const results = this.#memory.f32;
        if (plan.outDtype === 'f16') {
          this.#kernels.narrow(outAt, floats, outAt);
          bytesOf(out).set(this.#memory.u8.subarray(outAt, outAt + 2 * floats), 2 * firstRow * rowFloats);
        } else {
          out.set(results.subarray(outAt >>> 2, (outAt >>> 2) + floats), firstRow * rowFloats);
        }
        lse.set(results.subarray(lseAt >>> 2, (lseAt >>> 2) + heads), firstRow * plan.queryHeads);
      },
    };
  }

  /** All parts are collected: the results go where they belong. */
  close<D extends OutDtype>({ out, lse, result }: OpenCall<D>): AttendResult<D> {
    if (out !== result.out) {
      result.out.set(out);
      result.lse.set(lse);
    }
    return result;
  }

  /** Computes what one thread does alone. */
  attendPart(open: OpenCall, part: Part): void {
    const { params, collect } = this.layOut(open, part);
    this.#kernels.attend(params);
    collect();
  }
}
