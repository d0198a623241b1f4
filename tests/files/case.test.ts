import { equal, is, ok, throws } from 'uvu/assert';
import { FormatError, pageLayout, quantize, wasmBackend } from '../../src/index.js';
import { readAppendCase, runAppendCase, writeAppendResult, type CacheTensors } from '../../src/files/append-case.js';
import { readAttendCase, runAttendCase, writeAttendResult } from '../../src/files/attend-case.js';
import { ATTENTION_BOUND, attentionError, firstDifference } from '../../src/files/compare.js';
import { parseSafetensors, serializeSafetensors } from '../../src/files/safetensors.js';
import { float32, uint8, type SafetensorsDtype, type Tensor } from '../../src/files/tensor.js';
import { assertSameBits } from '../bits.js';
import { random } from '../random.js';
import { referenceAttention } from '../reference/attention.js';
import { definitions, valueOf } from '../reference/codec.js';
import { suite } from '../suite.js';

const test = suite('case files');
const backend = wasmBackend();
const numbers = random(4);

const tensor = (dtype: SafetensorsDtype, shape: readonly number[], values: ArrayBufferView): Tensor =>
  ({ dtype, shape, data: new Uint8Array(values.buffer, values.byteOffset, values.byteLength) });
const f32 = (...shape: number[]): Tensor => tensor('F32', shape, numbers.normals(shape.reduce((a, b) => a * b, 1)));
const i32 = (shape: readonly number[], ...values: number[]): Tensor => tensor('I32', shape, Int32Array.from(values));
const zeros = (dtype: SafetensorsDtype, bytes: number, ...shape: number[]): Tensor =>
  tensor(dtype, shape, new Uint8Array(shape.reduce((a, b) => a * b, bytes)));
const codes = (...shape: number[]): Tensor =>
  tensor('F8_E4M3', shape, Uint8Array.from({ length: shape.reduce((a, b) => a * b, 1) }, () => numbers.integer(0x7f) + 128 * numbers.integer(2)));

/** A file in the making. An absent tensor or text is none. */
type Parts<T> = Readonly<Record<string, T | undefined>>;
interface Change {
  readonly tensors?: Parts<Tensor>;
  readonly metadata?: Parts<string>;
}

const stated = <T>(parts: Parts<T>): Map<string, T> =>
  new Map(Object.entries(parts).filter((part): part is [string, T] => part[1] !== undefined));

const fileOf = (base: Required<Change>, { tensors, metadata }: Change = {}): Uint8Array =>
  serializeSafetensors(stated({ ...base.tensors, ...tensors }), stated({ ...base.metadata, ...metadata }));

/** Three rows of two sequences of 3 and 2 keys; 4 query heads over 2 KV heads of 8; 4 blocks of 2. */
const attendBase: Required<Change> = {
  tensors: {
    q: f32(3, 4, 8), k_cache: codes(4, 2, 2, 8), v_cache: codes(4, 2, 2, 8), k_scale: tensor('F32', [1], Float32Array.of(0.01)),
    v_scale: tensor('F32', [4, 2, 2], numbers.normals(16).map((x) => Math.abs(x) / 100)),
    block_table: i32([2, 2], 3, 1, 0, -1), cu_seqlens_q: i32([3], 0, 1, 3), seqused_k: i32([2], 3, 2),
  },
  metadata: { fp8_kv_case: 'attend/1', layout: 'NHD', causal: 'true', window_left: '-1', window_right: '-1', softcap: '0', softmax_scale: '0.25' },
};

/** Three tokens for 2 KV heads of 8, into 2 blocks of 4. */
const appendBase: Required<Change> = {
  tensors: { key: f32(3, 2, 8), value: f32(3, 2, 8), slot_mapping: i32([3], 6, -1, 1) },
  metadata: { fp8_kv_case: 'append/1', layout: 'NHD', kv_cache_dtype: 'fp8_e4m3', granularity: 'token-head', recipe: 'amax', blocks: '2', block_size: '4' },
};

const attend = async (change?: Change) => {
  const attendCase = readAttendCase(fileOf(attendBase, change), 'case');
  return { attendCase, ...(await runAttendCase(backend, attendCase)) };
};
const append = async (change?: Change) => runAppendCase(backend, readAppendCase(fileOf(appendBase, change), 'case'));

/** The backend's memory, and where its next small block would be. */
const { memory } = backend.createPages(pageLayout({ kvHeads: 1, headDim: 8, blockSize: 1 }), 1);
function nextBlock(): readonly [number, number] {
  const at = memory.allocate(1, 'test');
  memory.free(at);
  return [at, memory.memory.buffer.byteLength];
}

type Kind = typeof FormatError | typeof RangeError | typeof TypeError;

/** A changed case must be refused with this class and message, in one line of sane length, and leave no memory taken. */
async function assertRefused(run: (change: Change) => Promise<unknown>, change: Change, kind: Kind, message: RegExp): Promise<void> {
  const before = nextBlock();
  const error = await run(change).then(() => undefined, (reason: unknown) => reason as Error);
  ok(error instanceof kind, `expected ${kind.name} of ${String(message)}, got ${String(error)}`);
  ok(message.test(error.message), `expected ${String(message)}, got ${error.message}`);
  if (kind === FormatError) ok(error.message.startsWith('case, byte '), error.message);
  ok(error.message.length < 400 && !error.message.includes('\n'), error.message);
  equal(nextBlock(), before, error.message);
}

/** A name, its change, the class and the message of the error. */
type Refusals = readonly (readonly [Change, Kind, RegExp])[];
const absent = (name: string): Refusals[number] =>
  [{ tensors: { [name]: undefined } }, FormatError, new RegExp(`tensor "${name}" expected to be there, got none`)];
const withTensor = (name: string, value: Tensor, message: RegExp, kind: Kind = FormatError): Refusals[number] =>
  [{ tensors: { [name]: value } }, kind, message];
const withText = (key: string, text: string | undefined, message: RegExp, kind: Kind = FormatError): Refusals[number] =>
  [{ metadata: { [key]: text } }, kind, message];
const scalar = (value: number): Tensor => tensor('F32', [1], Float32Array.of(value));

const attendRefusals: Readonly<Record<string, Refusals>> = {
  'missing tensors': ['q', 'k_cache', 'v_cache', 'block_table', 'cu_seqlens_q', 'seqused_k'].map(absent),
  'wrong dtypes': [
    withTensor('q', zeros('I32', 4, 3, 4, 8), /tensor "q" expected F32, F16 or BF16, got I32/),
    withTensor('k_cache', zeros('U8', 1, 4, 2, 2, 8), /tensor "k_cache" expected a cache of F8_E4M3, F8_E5M2, I8, F16, F32, got U8/),
    withTensor('v_cache', zeros('BF16', 2, 4, 2, 2, 8), /tensor "v_cache" expected a cache of .*, got BF16/),
    withTensor('block_table', zeros('F32', 4, 2, 2), /"block_table" expected I32 or I64, got F32/),
    withTensor('cu_seqlens_q', zeros('F64', 8, 3), /"cu_seqlens_q" expected I32 or I64, got F64/),
    withTensor('seqused_k', zeros('U32', 4, 2), /"seqused_k" expected I32 or I64, got U32/),
    withTensor('k_scale', zeros('BF16', 2, 1), /"k_scale" expected F32 or F16, got BF16/),
    withTensor('sinks', zeros('F16', 2, 4), /"sinks" expected F32, got F16/),
    withTensor('expected.out', zeros('I32', 4, 3, 4, 8), /"expected.out" expected F32, F16 or BF16, got I32/),
  ],
  'wrong ranks': [
    withTensor('q', f32(12, 8), /tensor "q" expected 3 dimensions, got \[12, 8\]/),
    withTensor('k_cache', codes(8, 2, 8), /tensor "k_cache" expected 4 dimensions, got \[8, 2, 8\]/),
    withTensor('block_table', i32([4], 0, 1, 2, 3), /tensor "block_table" expected 2 dimensions, got \[4\]/),
    withTensor('cu_seqlens_q', i32([1, 3], 0, 1, 3), /tensor "cu_seqlens_q" expected 1 dimensions/),
    withTensor('seqused_k', i32([], 3), /tensor "seqused_k" expected 1 dimensions, got \[\]/),
    withTensor('sinks', f32(1, 4), /tensor "sinks" expected 1 dimensions/),
  ],
  'shapes that disagree': [
    withTensor('v_cache', codes(4, 2, 2, 16), /tensor "v_cache" expected shape \[4, 2, 2, 8\], got \[4, 2, 2, 16\]/),
    withTensor('q', f32(3, 4, 16), /tensor "q" expected shape \[3, 4, 8\], got \[3, 4, 16\]/),
    withTensor('q', f32(3, 3, 8), /"q" expected 3 rows × a multiple of 2 heads × 8/, RangeError),
    withTensor('q', f32(3, 0, 8), /"q" expected 3 rows × a multiple of 2 heads × 8/, RangeError),
    withTensor('cu_seqlens_q', i32([2], 0, 3), /tensor "cu_seqlens_q" expected shape \[3\], got \[2\]/),
    withTensor('seqused_k', i32([3], 3, 2, 1), /tensor "seqused_k" expected shape \[2\], got \[3\]/),
    withTensor('v_scale', f32(4, 2, 1), /tensor "v_scale" expected shape \[4, 2, 2\], got \[4, 2, 1\]/),
    withTensor('sinks', f32(2), /tensor "sinks" expected shape \[4\], got \[2\]/),
    withTensor('expected.out', f32(3, 4, 4), /tensor "expected.out" expected shape \[3, 4, 8\]/),
    withTensor('expected.lse', f32(4, 3), /tensor "expected.lse" expected shape \[3, 4\]/),
    // Twice the heads for half the rows would be as many numbers.
    withTensor('q', f32(6, 2, 8), /tensor "cu_seqlens_q" expected to end with the 6 rows of "q", got 3/),
  ],
  'shapes that no page has': [
    ...[12, 264].map((dim): Refusals[number] => {
      const change = { tensors: { q: f32(3, 4, dim), k_cache: codes(4, 2, 2, dim), v_cache: codes(4, 2, 2, dim) } };
      return [change, RangeError, new RegExp(`"headDim" expected a multiple of 8 from 8 to 256, got number ${dim}`)];
    }),
    [{ tensors: { k_cache: codes(4, 2, 0, 8), v_cache: codes(4, 2, 0, 8), v_scale: f32(4, 2, 0) } }, RangeError, /"kvHeads" expected an integer from 1/],
    [{ tensors: { k_cache: codes(4, 0, 2, 8), v_cache: codes(4, 0, 2, 8), v_scale: f32(4, 0, 2) } }, RangeError, /"blockSize" expected an integer from 1/],
    [{ tensors: { k_cache: codes(0, 2, 2, 8), v_cache: codes(0, 2, 2, 8), v_scale: f32(0, 2, 2) } }, RangeError, /"blockTable" expected a page from 0 to 0 for sequence 0, block 0, got 3/],
  ],
  'unknown metadata': [
    withText('fp8_kv_case', undefined, /metadata "fp8_kv_case" expected attend\/1, got none/),
    withText('fp8_kv_case', 'append/1', /metadata "fp8_kv_case" expected attend\/1, got "append\/1"/),
    withText('layout', 'HND', /metadata "layout" expected NHD, got "HND"/),
    withText('causal', 'True', /metadata "causal" expected true or false, got "True"/),
    withText('window_left', 'wide', /metadata "window_left" expected a number, got "wide"/),
    withText('window_left', '1.5', /"windowLeft" expected an integer from -1/, RangeError),
    withText('window_right', '-2', /"windowRight" expected an integer from -1/, RangeError),
    withText('softcap', '-1', /"softcap" expected 0, or a finite f32 greater than 0/, RangeError),
    withText('softmax_scale', 'nan', /metadata "softmax_scale" expected a number, got "nan"/),
    withText('softmax_scale', '0x1p-2', /metadata "softmax_scale" expected a number/),
    withText('softmax_scale', '', /metadata "softmax_scale" expected a number, got ""/),
    withText('softmax_scale', '1e999', /"softmaxScale" expected a finite number/, RangeError),
    withText('kv_cache_dtype', 'fp4', /metadata "kv_cache_dtype" expected one of e4m3fn, .* got "fp4"/),
    withText('v_dtype', 'constructor', /metadata "v_dtype" expected one of .* got "constructor"/),
  ],
  'metadata that the tensors contradict': [
    withText('kv_cache_dtype', 'fp8_e5m2', /metadata states e5m2 for k, tensor "k_cache" is F8_E4M3/),
    withText('v_dtype', 'f16', /metadata states f16 for v, tensor "v_cache" is F8_E4M3/),
    withText('k_granularity', 'token-head', /metadata states granularity token-head for k, tensor "k_scale" has shape \[1\]/),
    withText('v_granularity', 'tensor', /metadata states granularity tensor for v, tensor "v_scale" has shape \[4, 2, 2\]/),
    [{ tensors: { v_scale: undefined }, metadata: { v_granularity: 'token-head' } }, FormatError,
      /tensor "v_scale" expected scales of granularity token-head, got none/],
    [{ tensors: { v_cache: zeros('F16', 2, 4, 2, 2, 8) } }, TypeError, /"v.granularity" expected tensor for f16/],
  ],
  'granularities and scales that do not fit': [
    withText('k_granularity', 'page', /metadata "k_granularity" expected one of tensor, head, channel, token-head, group, got "page"/),
    withText('k_granularity', 'head', /tensor "k_scale" expected shape \[2\], got \[1\]/),
    ...['channel', 'group'].map((name) => withText('k_granularity', name, new RegExp(`metadata states granularity ${name} for k, tensor "k_scale" has shape \\[1\\]`))),
    withTensor('k_scale', f32(3), /tensor "k_scale" expected shape \[2\], got \[3\]/),
    withTensor('k_scale', f32(2, 7), /tensor "k_scale" expected shape \[2, 8\], got \[2, 7\]/),
    withTensor('v_scale', f32(4, 2, 3), /tensor "v_scale" expected shape \[4, 2, 2\], got \[4, 2, 3\]/),
    withTensor('v_scale', f32(4, 2, 2, 2), /"v.groupSize" expected a multiple of 8 that divides headDim \(8\), got number 4/, RangeError),
    withTensor('v_scale', f32(4, 2, 2, 0), /metadata "group_size" expected a number, as granularity group is stated for v, got none/),
    [{ tensors: { v_scale: f32(4, 2, 2, 1) }, metadata: { group_size: '4' } }, FormatError, /tensor "v_scale" expected shape \[4, 2, 2, 2\], got \[4, 2, 2, 1\]/],
    withTensor('k_scale', f32(1, 1, 1, 1, 1), /tensor "k_scale" expected scales \[1\], .* got \[1, 1, 1, 1, 1\]/),
    withTensor('alibi_slopes', f32(3), /tensor "alibi_slopes" expected shape \[4\], got \[3\]/),
  ],
  'given scales that are none': [NaN, 0, -0, -1, Infinity, 1e-46].map((value) =>
    withTensor('k_scale', scalar(value), /"kScale\[0\]" expected a finite scale greater than 0/, RangeError)),
  'tables out of range': [
    withTensor('block_table', i32([2, 2], 3, 4, 0, -1), /"blockTable" expected a page from 0 to 3 for sequence 0, block 1, got 4/, RangeError),
    withTensor('block_table', i32([2, 2], 3, -1, 0, -1), /"blockTable" expected a page .* got -1/, RangeError),
    withTensor('block_table', i32([2, 2], -(2 ** 31), 1, 0, -1), /"blockTable" expected a page .* got -2147483648/, RangeError),
    withTensor('block_table', i32([2, 0]), /"seqUsedK\[0\]" expected an integer from 0 to 0, got number 3/, RangeError),
    withTensor('seqused_k', i32([2], 3, 5), /"seqUsedK\[1\]" expected an integer from 0 to 4, got number 5/, RangeError),
    withTensor('seqused_k', i32([2], -1, 2), /"seqUsedK\[0\]" expected an integer from 0/, RangeError),
    withTensor('cu_seqlens_q', i32([3], 0, 4, 3), /"cuSeqlensQ" expected entries that do not fall, got 4, 3/, RangeError),
    withTensor('cu_seqlens_q', i32([3], 1, 1, 3), /"cuSeqlensQ" expected to begin with 0, got 1/, RangeError),
    withTensor('cu_seqlens_q', i32([3], 0, 1, 2), /tensor "cu_seqlens_q" expected to end with the 3 rows of "q", got 2/),
    withTensor('cu_seqlens_q', i32([3], 0, 1, 2 ** 30), /tensor "cu_seqlens_q" expected to end with the 3 rows/),
  ],
};

const givenScale = (name: string, value: number): Refusals[number] =>
  [{ tensors: { [name]: scalar(value) }, metadata: { granularity: 'tensor' } }, RangeError,
    new RegExp(`"${name[0]}Scale\\[0\\]" expected a finite scale greater than 0`)];
const start = { k_cache: codes(2, 4, 2, 8), v_cache: codes(2, 4, 2, 8), k_scale: f32(2, 4, 2), v_scale: f32(2, 4, 2) };

const appendRefusals: Readonly<Record<string, Refusals>> = {
  'missing tensors': [
    ...['key', 'value', 'slot_mapping'].map(absent),
    [{ tensors: { ...start, v_cache: undefined } }, FormatError, /tensor "v_cache" expected to be there, got none/],
    [{ tensors: { ...start, v_scale: undefined } }, FormatError, /tensor "v_scale" expected scales of granularity token-head, got none/],
    [{ tensors: { k_scale: start.k_scale } }, FormatError, /tensor "k_scale" expected "k_cache" beside it, got none/],
  ],
  'wrong dtypes': [
    withTensor('key', zeros('I8', 1, 3, 2, 8), /tensor "key" expected F32, F16 or BF16, got I8/),
    withTensor('value', zeros('F16', 2, 3, 2, 8), /tensor "value" expected the dtype of "key", got F16/),
    withTensor('slot_mapping', tensor('I64', [3], BigInt64Array.of(0n, 2n ** 32n, 1n)), /"slot_mapping\[1\]" expected a number of 32 bits, got 4294967296/),
    [{ tensors: { ...start, k_cache: zeros('U8', 1, 2, 4, 2, 8) }, metadata: { kv_cache_dtype: 'int8' } }, FormatError, /tensor "k_cache" expected a cache of/],
    [{ tensors: { ...start, k_cache: zeros('F8_E5M2', 1, 2, 4, 2, 8) } }, FormatError, /metadata states e4m3fn for k, tensor "k_cache" is F8_E5M2/],
  ],
  'wrong ranks and shapes': [
    withTensor('key', f32(6, 8), /tensor "key" expected 3 dimensions/),
    withTensor('value', f32(3, 1, 16), /tensor "value" expected shape \[3, 2, 8\], got \[3, 1, 16\]/),
    withTensor('slot_mapping', i32([2], 0, 1), /tensor "slot_mapping" expected shape \[3\], got \[2\]/),
    withTensor('slot_mapping', i32([3, 1], 0, 1, 2), /tensor "slot_mapping" expected 1 dimensions/),
    [{ tensors: { ...start, k_cache: codes(2, 4, 1, 16) } }, FormatError, /tensor "k_cache" expected shape \[2, 4, 2, 8\], got \[2, 4, 1, 16\]/],
    [{ tensors: { ...start, v_cache: codes(4, 2, 2, 8) } }, FormatError, /tensor "v_cache" expected shape \[2, 4, 2, 8\], got \[4, 2, 2, 8\]/],
    [{ tensors: { ...start, k_scale: f32(2, 4, 1) } }, FormatError, /tensor "k_scale" expected shape \[2, 4, 2\]/],
    [{ tensors: { key: f32(3, 2, 12), value: f32(3, 2, 12) } }, RangeError, /"headDim" expected a multiple of 8/],
    [{ tensors: { key: f32(3, 0, 8), value: f32(3, 0, 8) } }, RangeError, /"kvHeads"/],
  ],
  'unknown metadata': [
    withText('fp8_kv_case', 'attend/1', /metadata "fp8_kv_case" expected append\/1, got "attend\/1"/),
    withText('layout', 'HND', /metadata "layout" expected NHD/),
    withText('kv_cache_dtype', undefined, /metadata "kv_cache_dtype" expected a cache dtype, got none/),
    withText('kv_cache_dtype', 'int4', /metadata "kv_cache_dtype" expected one of .* got "int4"/),
    withText('recipe', 'amin', /"recipe" expected one of amax, .* got "amin"/, TypeError),
    withText('recipe', 'toString', /"recipe" expected one of/, TypeError),
    withText('granularity', '', /metadata "granularity" expected one of tensor, .* got ""/),
    ...['head', 'channel'].map((name) => withText('granularity', name, new RegExp(`tensor "k_scale" expected scales of granularity ${name}, got none`))),
    withText('granularity', 'group', /metadata "group_size" expected a number, as granularity group is stated for k, got none/),
    [{ metadata: { granularity: 'group', group_size: '3' } }, RangeError, /"k.groupSize" expected a multiple of 8 that divides headDim \(8\), got number 3/],
    [{ tensors: { k_scale: scalar(1) } }, FormatError, /metadata states granularity token-head for k, tensor "k_scale" has shape \[1\]/],
  ],
  'sizes that are none, or too much': [
    withText('blocks', undefined, /metadata "blocks" expected a non-negative integer, got none/),
    withText('block_size', undefined, /metadata "block_size" expected a non-negative integer, got none/),
    withText('blocks', 'many', /metadata "blocks" expected a number, got "many"/),
    ...['1.5', '-1', '1e300', '9007199254740993'].map((size) => withText('blocks', size, /metadata "blocks" expected a non-negative integer, got "/)),
    [{ tensors: start, metadata: { blocks: '3' } }, FormatError, /tensor "k_cache" expected shape \[3, 4, 2, 8\], got \[2, 4, 2, 8\]/],
    withText('blocks', '0', /"count" expected an integer from 1/, RangeError),
    withText('blocks', '1000000000000', /"count" expected an integer from 1 to \d+, got number 1000000000000/, RangeError),
    withText('blocks', '100000000', /"pages" expected to fit into WebAssembly memory, got 32000000000 bytes/, RangeError),
    withText('block_size', '0', /"blockSize" expected an integer from 1 to 1048576/, RangeError),
    withText('block_size', '1000000000', /"blockSize" expected an integer from 1 to 1048576/, RangeError),
    [{ metadata: { blocks: '30000', block_size: '65536' } }, RangeError, /"pages" expected to fit into WebAssembly memory/],
  ],
  'given scales that are none': [
    ...[NaN, 0, -1, Infinity].flatMap((value) => [givenScale('k_scale', value), givenScale('v_scale', value)]),
    [{ tensors: { v_scale: scalar(2) }, metadata: { kv_cache_dtype: 'f16', granularity: 'tensor' } }, RangeError, /"vScale" expected 1 for f16/],
  ],
  'slots that are repeated or not there': [
    withTensor('slot_mapping', i32([3], 6, 0, 6), /"slotMapping\[2\]" expected a slot that no other token has, got 6 again/, RangeError),
    withTensor('slot_mapping', i32([3], 6, 8, 1), /"slotMapping\[1\]" expected a slot below 8, got 8/, RangeError),
    withTensor('slot_mapping', i32([3], 2 ** 31 - 1, 0, 1), /"slotMapping\[0\]" expected a slot below 8/, RangeError),
  ],
};

for (const [kind, run, refusals] of [['attend', attend, attendRefusals], ['append', append, appendRefusals]] as const) {
  for (const [what, cases] of Object.entries(refusals)) {
    test(`${kind}: ${what}`, async () => {
      await run();
      for (const [change, error, message] of cases) await assertRefused(run, change, error, message);
    });
  }
}

test('a hostile text is quoted, in one short line', async () => {
  const hostile = 'x\ny'.repeat(100_000);
  for (const [run, keys] of [
    [attend, [...Object.keys(attendBase.metadata), 'k_dtype', 'v_granularity']],
    [append, ['fp8_kv_case', 'layout', 'kv_cache_dtype', 'granularity', 'blocks', 'block_size']],
  ] as const) {
    for (const key of keys) await assertRefused(run, { metadata: { [key]: hostile } }, FormatError, new RegExp(`metadata "${key}" .* got "x\\\\ny`));
  }
});

const e4m3fn = (cache: Tensor, index: number): number => valueOf(uint8(cache)[index], definitions.e4m3fn);

test('an attend case means what float64 makes of its tensors', async () => {
  const { q, k_cache, v_cache, v_scale } = attendBase.tensors as Record<string, Tensor>;
  const { attendCase, out, lse } = await attend({
    tensors: { sinks: tensor('F32', [4], Float32Array.of(0, 1, -1, 2)) },
    metadata: { window_left: '1', softcap: '3e0' },
  });
  is(attendCase.layout.k.granularity, 'tensor');
  is(attendCase.layout.v.granularity, 'token-head');
  for (const [kvLen, table, from, to] of [[3, [3, 1], 0, 1], [2, [0], 1, 3]] as const) {
    const row = (j: number, head: number): number => (table[j >> 1] * 2 + (j & 1)) * 2 + head;
    const expected = referenceAttention({
      q: float32(q).subarray(from * 32, to * 32), queryHeads: 4, kvHeads: 2, headDim: 8, kvLen,
      windowLeft: 1, softcap: 3, sinks: [0, 1, -1, 2], softmaxScale: 0.25,
      key: (j, head, d) => e4m3fn(k_cache, row(j, head) * 8 + d) * Math.fround(0.01),
      value: (j, head, d) => e4m3fn(v_cache, row(j, head) * 8 + d) * float32(v_scale)[row(j, head)],
    });
    const actual = { out: out.subarray(from * 32, to * 32), lse: lse.subarray(from * 4, to * 4) };
    const error = attentionError(actual, { out: Float32Array.from(expected.out), lse: Float32Array.from(expected.lse) }, 8);
    ok(error.out <= ATTENTION_BOUND && error.lse <= ATTENTION_BOUND, `out ${error.out}, lse ${error.lse}`);
  }
  const written = parseSafetensors(writeAttendResult(attendCase, { out, lse }), 'result');
  is(written.metadata.get('fp8_kv_result'), 'attend/1');
  equal([...written.tensors].map(([name, { dtype, shape }]) => [name, dtype, shape]), [['lse', 'F32', [3, 4]], ['out', 'F32', [3, 4, 8]]]);
  assertSameBits(float32(written.tensors.get('out')!), out);
  assertSameBits(float32(written.tensors.get('lse')!), lse);
});

test('what metadata leaves out is plain causal attention, and numbers may be written as JSON does', async () => {
  const plain = await attend();
  const none = { causal: undefined, window_left: undefined, window_right: undefined, softcap: undefined, layout: undefined };
  assertSameBits((await attend({ metadata: none })).out, plain.out);
  const same = { softmax_scale: '2.5E-1', softcap: '0.0', k_granularity: 'tensor', kv_cache_dtype: 'fp8' };
  assertSameBits((await attend({ metadata: same })).out, plain.out);
  is(readAttendCase(fileOf(attendBase, { metadata: { softmax_scale: undefined } }), 'case').call.softmaxScale, 1 / Math.sqrt(8));
  const oneHead = { q: f32(3, 4, 8), k_cache: codes(4, 2, 1, 8), v_cache: codes(4, 2, 1, 8), v_scale: undefined };
  is(readAttendCase(fileOf(attendBase, { tensors: oneHead, metadata: { k_granularity: 'head' } }), 'case').layout.k.granularity, 'head', 'one head');
});

test('rows that see nothing give out 0 and lse −∞, or the sink', async () => {
  const seqused_k = i32([2], 0, 1);
  const block_table = i32([2, 2], -1, -1, 0, -1);
  const sinks = tensor('F32', [4], Float32Array.of(0.5, -1, 2, 0));
  for (const sink of [undefined, sinks]) {
    const { out, lse } = await attend({ tensors: { seqused_k, block_table, sinks: sink } });
    assertSameBits(out.subarray(0, 64), new Float32Array(64), 'no keys, and a row before the first');
    const nothing = sink ? float32(sink) : new Float32Array(4).fill(-Infinity);
    assertSameBits(lse.subarray(0, 8), Float32Array.of(...nothing, ...nothing));
    ok(out.subarray(64).some((value) => value !== 0));
  }
});

test('sequences without rows, and no sequences at all', async () => {
  const second = { cu_seqlens_q: i32([3], 0, 3, 3), seqused_k: i32([2], 3, 0), block_table: i32([2, 2], 3, 1, -1, -1) };
  const { out } = await attend({ tensors: second });
  is(out.length, 96);
  for (const tables of [
    { cu_seqlens_q: i32([3], 0, 0, 0) },
    { cu_seqlens_q: i32([1], 0), seqused_k: i32([0]), block_table: i32([0, 2]) },
  ]) {
    const nothing = await attend({ tensors: { q: f32(0, 4, 8), ...tables } });
    is(nothing.out.length + nothing.lse.length, 0);
    equal(parseSafetensors(writeAttendResult(nothing.attendCase, nothing), 'result').tensors.get('out')!.shape, [0, 4, 8]);
  }
});

/** The bytes of one of 8 slots, in all tensors of a cache. */
function slotOf(tensors: CacheTensors, slot: number): Uint8Array {
  const parts = ['k_cache', 'v_cache', 'k_scale', 'v_scale'].map((name) => tensors.get(name)!.data);
  return Uint8Array.from(parts.flatMap((data) => [...data.subarray((slot * data.length) / 8, ((slot + 1) * data.length) / 8)]));
}

test('an append case writes its slots, skips negative ones, and keeps the start state in all others', async () => {
  const fresh = await append();
  equal(fresh.status, { written: 2, skipped: 1 });
  const { codes: keyCodes, scales } = quantize(float32(appendBase.tensors.key!), { rowLength: 8 });
  assertSameBits(uint8(fresh.tensors.get('k_cache')!).subarray(6 * 16, 7 * 16), keyCodes.subarray(0, 16));
  assertSameBits(float32(fresh.tensors.get('k_scale')!).subarray(1 * 2, 2 * 2), scales.subarray(4, 6));
  const started = await append({ tensors: start });
  const before = new Map(Object.entries(start));
  for (let slot = 0; slot < 8; slot++) {
    const written = slot === 6 || slot === 1;
    assertSameBits(slotOf(started.tensors, slot), slotOf(written ? fresh.tensors : before, slot), `slot ${slot}`);
    if (!written) ok(slotOf(fresh.tensors, slot).every((byte) => byte === 0), `slot ${slot} of a fresh cache`);
  }
  equal((await append({ tensors: { slot_mapping: i32([3], -1, -(2 ** 31), -7) } })).status, { written: 0, skipped: 3 });
  equal((await append({ tensors: { key: f32(0, 2, 8), value: f32(0, 2, 8), slot_mapping: i32([0]) } })).status, { written: 0, skipped: 0 });
});

test('a given scale is used and written, also where no granularity is stated', async () => {
  const scales = { k_scale: scalar(0.03), v_scale: scalar(2) };
  for (const granularity of ['tensor', undefined]) {
    const { tensors } = await append({ tensors: scales, metadata: { granularity } });
    const expected = quantize(float32(appendBase.tensors.value!), { rowLength: 8, scale: 2 }).codes;
    assertSameBits(uint8(tensors.get('v_cache')!).subarray(6 * 16, 7 * 16), expected.subarray(0, 16));
    equal([tensors.get('k_scale'), tensors.get('v_scale')], [scales.k_scale, scales.v_scale]);
  }
});

test('start state and append give the expected tensors, and a byte that differs is named', async () => {
  for (const metadata of [{}, { k_dtype: 'f16', k_granularity: 'tensor' }, { v_dtype: 'fp8_e5m2', recipe: 'vllm-token-head' }]) {
    const { tensors } = await append({ metadata });
    const written = parseSafetensors(writeAppendResult(tensors), 'result');
    is(written.metadata.get('fp8_kv_result'), 'append/1');
    is(firstDifference(written.tensors, tensors), undefined);
    const expected = Object.fromEntries([...written.tensors].map(([name, each]) => [`expected.${name}`, each]));
    const again = readAppendCase(fileOf(appendBase, { tensors: { ...Object.fromEntries(written.tensors), ...expected }, metadata }), 'case');
    equal([...again.expected.keys()].sort(), [...tensors.keys()].sort());
    const { tensors: repeated } = await runAppendCase(backend, again);
    is(firstDifference(repeated, again.expected), undefined, 'writing the same again changes nothing');
    const wrong = tensor('F8_E4M3', [2, 4, 2, 8], uint8(tensors.get('v_cache')!).slice());
    wrong.data[20] ^= 0xff;
    wrong.data[111] ^= 1;
    const difference = firstDifference(repeated, new Map([...again.expected, ['v_cache', wrong]]));
    equal(difference, { tensor: 'v_cache', count: 2, at: 20, expected: wrong.data[20], actual: wrong.data[20] ^ 0xff });
  }
});

test('expected tensors of another dtype or shape than the result can have are refused', async () => {
  const written = await runAppendCase(backend, readAppendCase(fileOf(appendBase), 'case'));
  const expecting = (name: string, dtype: Tensor['dtype'], shape: number[]) => {
    const { data } = written.tensors.get(name)!;
    return () => readAppendCase(fileOf(appendBase, { tensors: { [`expected.${name}`]: { dtype, shape, data } } }), 'case');
  };
  const { shape } = written.tensors.get('k_cache')!;
  throws(expecting('k_cache', 'F8_E5M2', [...shape]), /"expected.k_cache" expected F8_E4M3, got F8_E5M2/);
  throws(expecting('k_cache', 'F8_E4M3', [...shape].reverse()), /"expected.k_cache" expected shape/);
});

test('f16 and f32 take no scales, whatever the metadata says of the whole cache', async () => {
  const mixed = { k_dtype: 'fp8_e4m3', v_dtype: 'f16', granularity: 'token-head' };
  const { tensors } = await append({ metadata: mixed });
  equal([...tensors.keys()], ['k_cache', 'k_scale', 'v_cache']);
  equal([...(await append({ metadata: { kv_cache_dtype: 'f32', granularity: 'token-head' } })).tensors.keys()], ['k_cache', 'v_cache']);
  const { tensors: started } = await append({ tensors: Object.fromEntries(tensors), metadata: { ...mixed, kv_cache_dtype: 'auto' } });
  equal([...started.keys()], [...tensors.keys()]);
});

test('a recipe means nothing where both scales are given', async () => {
  const { tensors } = await append({ metadata: { granularity: 'tensor', recipe: 'static' } });
  equal([...tensors.get('k_scale')!.shape], [1]);
});

test('a tensor that is missing, shorter or longer differs from its end on', () => {
  const bytes = (...values: number[]) => new Map([['k_scale', tensor('U8', [values.length], Uint8Array.from(values))]]);
  equal(firstDifference(new Map(), bytes(1, 2)), { tensor: 'k_scale', count: 2, at: 0, expected: 1, actual: undefined });
  equal(firstDifference(bytes(1, 2), bytes(1, 2, 3)), { tensor: 'k_scale', count: 1, at: 2, expected: 3, actual: undefined });
  equal(firstDifference(bytes(1, 2), bytes(1)), { tensor: 'k_scale', count: 1, at: 1, expected: undefined, actual: 2 });
  is(firstDifference(bytes(1, 2), new Map()), undefined);
});

test('the error of attention is relative to its row, and a NaN or infinity must be the same', () => {
  const row = (...values: number[]) => Float32Array.from(values);
  const error = (actual: Float32Array, expected: Float32Array) => attentionError({ out: actual, lse: actual }, { out: expected, lse: expected }, 2);
  equal(error(row(1, 4.5, 0, 0), row(1, 4, 0, 0)), { out: 0.125, lse: 0.125 });
  equal(error(row(0, 0.25), row(0, 0)), { out: 0.25 / 1e-6, lse: 0.25 });
  equal(error(row(NaN, -Infinity, Infinity, 1), row(NaN, -Infinity, Infinity, 1)), { out: 0, lse: 0 });
  for (const [actual, expected] of [[NaN, 1], [1, NaN], [Infinity, 1], [1, -Infinity], [Infinity, -Infinity]]) {
    equal(error(row(0, actual), row(0, expected)), { out: Infinity, lse: Infinity }, `${actual} for ${expected}`);
  }
  equal(attentionError({ out: row(7, 7), lse: row(7) }, {}, 2), { out: 0, lse: 0 });
});
