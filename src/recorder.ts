/**
 * With `FP8_KV_RECORD=folder` in the environment, in Node and what is like it, calls of `append` and `attend` are written as case
 * files before they run, so that what a process was computing when it ended can be computed again: `fp8-kv append|attend FILE`.
 * Looked for when a backend is made: one that does not record is as it was.
 */
import { recipeOf } from './append.js';
import type { AppendCall, AttendCall, CodeArray, NhdTensors } from './backend.js';
import { inOneLine } from './errors.js';
import { scaleShape } from './files/case.js';
import { serializeSafetensors } from './files/safetensors.js';
import { fileDtypes, type SafetensorsDtype, type Tensor } from './files/tensor.js';
import { bytesOf, floatDtypeOf, formats, type FloatArray, type FloatDtype } from './formats.js';
import { isGiven } from './policies.js';
import type { PageLayout } from './layout.js';
import { newTensors } from './tensors.js';
import { recipes } from './recipe.js';
import type { GivenScale } from './scale.js';
import { warn } from './warn.js';
import type { WasmPages } from './wasm/pages.js';

/** No more files are written by one process. */
const MOST_FILES = 1000;

/** No more bytes are written by one process. */
const MOST_BYTES = 2 ** 32;

/** What was copied of a call. */
interface Recording {
  /** The pages that go along, in the order in which the call's tables count them now. */
  readonly pages: readonly number[];
  /** Keys, values or queries, tables, and given scales. */
  readonly tensors: ReadonlyMap<string, Tensor>;
  /** Writes it together with what is in these pages by then. What goes wrong is no matter of the call. */
  readonly write: (read: (pages: readonly number[]) => NhdTensors) => void;
}

interface Content {
  readonly tensors: Map<string, Tensor>;
  readonly metadata: Readonly<Record<string, string | number | boolean | undefined>>;
  /** The pages that go along, in the order in which the call's tables count them now. */
  readonly pages: readonly number[];
}

const copyOf = (dtype: SafetensorsDtype, shape: readonly number[], values: ArrayBufferView): Tensor => ({ dtype, shape, data: bytesOf(values).slice() });
const integers = (shape: readonly number[], values: Int32Array): Tensor => copyOf('I32', shape, values);

function floats(values: FloatArray, dtype: FloatDtype | undefined, argument: string, heads: number, headDim: number): Tensor {
  return copyOf(fileDtypes[floatDtypeOf(values, dtype, argument)], [values.length / (heads * headDim), heads, headDim], values);
}

/** Given scales in the shape that the granularity has. */
function givenScales({ kvHeads, headDim, ...layout }: PageLayout, call: Pick<AppendCall, 'kScale' | 'vScale'>): [string, Tensor][] {
  const sides: readonly ['k' | 'v', GivenScale | undefined][] = [['k', call.kScale], ['v', call.vScale]];
  return sides.flatMap(([side, given = 1]): [string, Tensor][] => {
    const { granularity, format } = layout[side];
    if (!isGiven(granularity) || (given === 1 && !formats[format].quantized)) return [];
    const shape = scaleShape(granularity, undefined, [0, 0, kvHeads, headDim]);
    const values = new Float32Array(shape.reduce((a, b) => a * b, 1));
    if (typeof given === 'number' || given.length === 1) values.fill(typeof given === 'number' ? given : given[0]);
    else values.set(given);
    return [[`${side}_scale`, copyOf('F32', shape, values)]];
  });
}

const sideMetadata = ({ k, v }: PageLayout): Content['metadata'] => ({
  k_granularity: formats[k.format].quantized ? k.granularity : undefined,
  v_granularity: formats[v.format].quantized ? v.granularity : undefined,
  k_group_size: k.granularity === 'group' ? k.groupSize : undefined,
  v_group_size: v.granularity === 'group' ? v.groupSize : undefined,
});

/** Pages that a table names get the numbers 0, 1, …, in the order in which they come. */
function renumber(table: Int32Array, pageOf: (entry: number) => number, entryOf: (entry: number, page: number) => number): { table: Int32Array; pages: number[] } {
  const numbers = new Map<number, number>();
  const renumbered = table.map((entry) => {
    if (entry < 0) return entry;
    const page = pageOf(entry);
    if (!numbers.has(page)) numbers.set(page, numbers.size);
    return entryOf(entry, numbers.get(page)!);
  });
  // A file needs a page, also where a call names none.
  return { table: renumbered, pages: numbers.size === 0 ? [0] : [...numbers.keys()] };
}

/**
 * The recipe of the sides whose scales are computed, by its name; a cache names each side's by the recipe itself.
 * @throws Error for what no case file can say
 */
function recipeName({ recipe, scalePrecision }: Pick<AppendCall, 'recipe' | 'scalePrecision'>, layout: PageLayout): string | undefined {
  if (recipe === undefined && scalePrecision === undefined) return undefined;
  const computed = (['k', 'v'] as const).filter((side) => formats[layout[side].format].quantized && !isGiven(layout[side].granularity));
  const used = computed.map((side) => recipeOf({ recipe, scalePrecision }, layout[side], side));
  const names = new Set(used.map((each) => Object.entries(recipes).find(([, known]) => known === each)?.[0]));
  if (names.has(undefined) || names.size > 1) throw new Error('a case file has no recipe but those with a name, the same for keys and values');
  return [...names][0];
}

/** @throws Error for what no case file can say */
function appendContent({ key, value, dtype, slotMapping, recipe, scalePrecision, kScale, vScale }: AppendCall, layout: PageLayout): Content {
  const named = recipeName({ recipe, scalePrecision }, layout);
  const { kvHeads, headDim, blockSize } = layout;
  const { table, pages } = renumber(slotMapping, (slot) => Math.floor(slot / blockSize), (slot, page) => page * blockSize + (slot % blockSize));
  const tensors = new Map([
    ['key', floats(key, dtype, 'key', kvHeads, headDim)], ['value', floats(value, dtype, 'value', kvHeads, headDim)],
    ['slot_mapping', integers([table.length], table)], ...givenScales(layout, { kScale, vScale }),
  ]);
  return { tensors, pages, metadata: { fp8_kv_case: 'append/1', recipe: named } };
}

/** @throws Error for what no case file can say */
function attendContent(call: AttendCall<'f32' | 'f16'>, layout: PageLayout): Content {
  if (call.kDescale !== undefined || call.vDescale !== undefined || call.contextLens !== undefined) throw new Error('a case file has no descales and no contextLens');
  const { kvHeads, headDim } = layout;
  const { q, dtype, cuSeqlensQ, seqUsedK, sinks, alibiSlopes } = call;
  const sequences = seqUsedK.length;
  const queryHeads = cuSeqlensQ[sequences] === 0 ? kvHeads : q.length / (cuSeqlensQ[sequences] * headDim);
  const blockTable = call.blockTable ?? Int32Array.from({ length: sequences }, (_, s) => s);
  const { table, pages } = renumber(blockTable, (page) => page, (_, page) => page);
  const tensors = new Map([
    ['q', floats(q, dtype, 'q', queryHeads, headDim)], ['block_table', integers([sequences, sequences && table.length / sequences], table)],
    ['cu_seqlens_q', integers([sequences + 1], cuSeqlensQ)], ['seqused_k', integers([sequences], seqUsedK)], ...givenScales(layout, call),
  ]);
  if (sinks) tensors.set('sinks', copyOf('F32', [sinks.length], sinks));
  if (alibiSlopes) tensors.set('alibi_slopes', copyOf('F32', [alibiSlopes.length], alibiSlopes));
  const { causal = true, windowLeft = -1, windowRight = -1, softcap = 0, softmaxScale } = call;
  return { tensors, pages, metadata: { fp8_kv_case: 'attend/1', causal, window_left: windowLeft, window_right: windowRight, softcap, softmax_scale: softmaxScale } };
}

/** What is in pages, one after the other. */
export const reader = (from: WasmPages) => (pages: readonly number[]): NhdTensors => {
  const { tensors } = newTensors(from.layout, pages.length);
  for (const [index, page] of pages.entries()) {
    const one = from.export(page, 1);
    for (const name of ['keyCache', 'valueCache', 'keyScale', 'valueScale'] as const) {
      const part = one[name];
      if (part) (tensors[name] as CodeArray).set(part, index * part.length);
    }
  }
  return tensors;
};

function cacheTensors(layout: PageLayout, count: number, { keyCache, valueCache, keyScale, valueScale }: NhdTensors): [string, Tensor][] {
  const shape = [count, layout.blockSize, layout.kvHeads, layout.headDim];
  const side = (name: 'k' | 'v', codes: CodeArray, scales: Float32Array | undefined): [string, Tensor][] => {
    const { format, granularity, groupSize } = layout[name];
    const cache: [string, Tensor] = [`${name}_cache`, { dtype: formats[format].safetensors, shape, data: bytesOf(codes) }];
    return scales ? [cache, [`${name}_scale`, { dtype: 'F32', shape: scaleShape(granularity, groupSize, shape), data: bytesOf(scales) }]] : [cache];
  };
  return [...side('k', keyCache, keyScale), ...side('v', valueCache, valueScale)];
}

/** Writes the calls of this process, numbered. */
class Recorder {
  #files = 0;
  #bytes = 0;
  /** Of the file that was named last. */
  #number = 0;
  readonly #warned = new Set<string>();

  constructor(readonly folder: string) {}

  append(call: AppendCall, backend: string): Recording | undefined {
    return this.#record('append', backend, call.pages.layout, () => appendContent(call, call.pages.layout));
  }

  attend(call: AttendCall<'f32' | 'f16'>, backend: string): Recording | undefined {
    return this.#record('attend', backend, call.pages.layout, () => attendContent(call, call.pages.layout));
  }

  /** What goes wrong here is no matter of the call. */
  attempt<T>(work: () => T): T | undefined {
    try {
      return work();
    } catch (error) {
      this.failed(error);
      return undefined;
    }
  }

  /** Says, once for each reason, that a call is not recorded. */
  failed(error: unknown): void {
    const message = `a call is not recorded: ${inOneLine(error)}`;
    if (this.#warned.has(message)) return;
    this.#warned.add(message);
    warn(`FP8_KV_RECORD: ${message}`);
  }

  #record(kind: 'append' | 'attend', backend: string, layout: PageLayout, make: () => Content): Recording | undefined {
    const content = this.attempt(make);
    if (content === undefined) return undefined;
    const { pages, tensors } = content;
    return { pages, tensors, write: (read) => void this.attempt(() => this.#write(kind, backend, content, layout, read(pages))) };
  }

  #write(kind: string, backend: string, { tensors, metadata, pages }: Content, layout: PageLayout, cache: NhdTensors): void {
    const number = this.#files + 1;
    const all = new Map([...tensors, ...cacheTensors(layout, pages.length, cache)]);
    const texts = { ...metadata, ...sideMetadata(layout), layout: 'NHD', recorded_backend: backend, recorded_at: new Date().toISOString(), recorded_number: number };
    const bytes = serializeSafetensors(all, new Map(Object.entries(texts).flatMap(([name, value]) => (value === undefined ? [] : [[name, String(value)]]))));
    if (number > MOST_FILES || this.#bytes + bytes.length > MOST_BYTES) throw new Error(`${MOST_FILES} files, or ${MOST_BYTES} bytes, are written: no more are`);
    const { mkdirSync, writeFileSync } = globalThis.process.getBuiltinModule('node:fs');
    const { join } = globalThis.process.getBuiltinModule('node:path');
    mkdirSync(this.folder, { recursive: true });
    for (;;) {
      const name = `${globalThis.process.pid}-${String(++this.#number).padStart(6, '0')}-${kind}.safetensors`;
      try {
        writeFileSync(join(this.folder, name), bytes, { flag: 'wx' });
        break;
      } catch (error) {
        // Of another thread, or of a process that had the same number: in containers, most have.
        if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
      }
    }
    this.#files = number;
    this.#bytes += bytes.length;
  }
}

/** Bundlers put something in the place of `process` in pages; Deno may refuse a look at the environment. */
function folderAskedFor(): string | undefined {
  try {
    return globalThis.process?.env?.FP8_KV_RECORD;
  } catch {
    return undefined;
  }
}

let recorder: Recorder | undefined;

/** The recorder of this process, where one is asked for and can be. */
export function recorderAskedFor(): Recorder | undefined {
  const folder = folderAskedFor();
  if (!folder || typeof globalThis.process.getBuiltinModule !== 'function') return undefined;
  if (recorder?.folder !== folder) recorder = new Recorder(folder);
  return recorder;
}
