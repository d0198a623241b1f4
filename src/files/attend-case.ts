/** `attend/1` case files: everything one attention call needs, and perhaps the answer. */
import type { AttendCall, AttendResult, Backend, NhdTensors } from '../backend.js';
import { bytesOf } from '../formats.js';
import { pageLayout, type PageLayout } from '../layout.js';
import { widen } from '../layouts/half-scales.js';
import { CaseReader } from './case.js';
import { ATTENTION_BOUND, ATTENTION_BOUND_16 } from './compare.js';
import { parseSafetensors, serializeSafetensors } from './safetensors.js';
import { float32, int32, type Tensor } from './tensor.js';

export interface AttendCase {
  readonly layout: PageLayout;
  readonly blocks: number;
  readonly cache: NhdTensors;
  readonly call: Omit<AttendCall, 'pages'>;
  /** [total_q, q_heads, dim] */
  readonly qShape: readonly number[];
  /** The answer, and how far out may be off it: of 16 bits more than of 32. */
  readonly expected: { readonly out: Float32Array | undefined; readonly lse: Float32Array | undefined; readonly outBound: number };
}

/** `expected.out` in f32, and what it is held to: kernels whose output is f16 or bf16 compute with those, too. */
function expectedOut(reader: CaseReader, shape: readonly number[]): Pick<AttendCase['expected'], 'out' | 'outBound'> {
  if (!reader.has('expected.out')) return { out: undefined, outBound: ATTENTION_BOUND };
  const tensor = reader.tensor('expected.out', shape.length);
  reader.expectShape('expected.out', tensor.shape, shape);
  const { values, dtype } = reader.floats('expected.out', tensor);
  return { out: widen(values, dtype), outBound: dtype === 'f32' ? ATTENTION_BOUND : ATTENTION_BOUND_16 };
}

/** @throws FormatError when the file is not such a case; TypeError or RangeError for a shape that no page can have */
export function readAttendCase(bytes: Uint8Array, file: string): AttendCase {
  const reader = new CaseReader(parseSafetensors(bytes, file), file, 'attend/1');
  const kCache = reader.tensor('k_cache', 4);
  const vCache = reader.tensor('v_cache', 4);
  reader.expectShape('v_cache', vCache.shape, kCache.shape);
  const [blocks, blockSize, kvHeads, headDim] = kCache.shape;
  const k = reader.side('k', kCache);
  const v = reader.side('v', vCache);
  const q = reader.tensor('q', 3);
  reader.expectShape('q', q.shape, [q.shape[0], q.shape[1], headDim]);
  const [rows, queryHeads] = q.shape;
  const blockTable = reader.tensor('block_table', 2);
  const [sequences] = blockTable.shape;
  const cuSeqlensQ = reader.tensor('cu_seqlens_q', 1);
  reader.expectShape('cu_seqlens_q', cuSeqlensQ.shape, [sequences + 1]);
  const seqUsedK = reader.tensor('seqused_k', 1);
  reader.expectShape('seqused_k', seqUsedK.shape, [sequences]);
  const optional = (name: string, shape: readonly number[]): Float32Array | undefined => {
    if (!reader.has(name)) return undefined;
    const tensor = reader.tensor(name, shape.length);
    reader.expectShape(name, tensor.shape, shape);
    return reader.typed(name, tensor, float32);
  };
  const { values, dtype } = reader.floats('q', q);
  const cuSeqlens = reader.typed('cu_seqlens_q', cuSeqlensQ, int32);
  if (cuSeqlens[sequences] !== rows) reader.fail(`tensor "cu_seqlens_q" expected to end with the ${rows} rows of "q", got ${cuSeqlens[sequences]}`);
  return {
    layout: pageLayout({ kvHeads, headDim, blockSize, k, v }),
    blocks,
    cache: { keyCache: reader.codes('k_cache', kCache), valueCache: reader.codes('v_cache', vCache), keyScale: k.computed, valueScale: v.computed },
    call: {
      q: values,
      dtype,
      blockTable: reader.typed('block_table', blockTable, int32),
      cuSeqlensQ: cuSeqlens,
      seqUsedK: reader.typed('seqused_k', seqUsedK, int32),
      causal: reader.boolean('causal', true),
      windowLeft: reader.number('window_left', -1),
      windowRight: reader.number('window_right', -1),
      softcap: reader.number('softcap', 0),
      softmaxScale: reader.number('softmax_scale', 1 / Math.sqrt(headDim)),
      sinks: optional('sinks', [queryHeads]),
      alibiSlopes: optional('alibi_slopes', [queryHeads]),
      kScale: k.given,
      vScale: v.given,
    },
    qShape: q.shape,
    expected: { ...expectedOut(reader, q.shape), lse: optional('expected.lse', [rows, queryHeads]) },
  };
}

/** Runs a case on a backend. */
export async function runAttendCase(backend: Backend, { layout, blocks, cache, call }: AttendCase): Promise<AttendResult> {
  // A cache without blocks is a case of sequences without keys: it needs a page to stand for it.
  const pages = backend.createPages(layout, Math.max(1, blocks));
  try {
    await pages.import(cache);
    return await backend.attend({ ...call, pages });
  } finally {
    pages.dispose();
  }
}

/** The result as a file. */
export function writeAttendResult({ qShape }: AttendCase, { out, lse }: AttendResult): Uint8Array {
  const tensors = new Map<string, Tensor>([
    ['out', { dtype: 'F32', shape: qShape, data: bytesOf(out) }],
    ['lse', { dtype: 'F32', shape: qShape.slice(0, 2), data: bytesOf(lse) }],
  ]);
  return serializeSafetensors(tensors, new Map([['fp8_kv_result', 'attend/1']]));
}
