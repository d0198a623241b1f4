/** The GPU's kernels: what each is made of, what it binds, and the constants that it is compiled with. */
import { floatDtypes, formats, isQuantized, type Format, type Fp8Format, type QuantizedFormat } from '../formats.js';
import { wgsl } from '../generated/wgsl.js';
import { GPU_CUT_KEYS, gpuAppendParams, gpuAttendParams, gpuDequantizeParams, gpuGatherParams, MAX_CONTEXT, type PageLayout, type ParamRecord, type SideLayout } from '../layout.js';
import { quotients, scalePrecisions } from '../recipe.js';
import { MOST_PREFILL_ROWS, PREFILL_WORKGROUP, productsOf, type MatrixShape, type Products, type Variant } from './variant.js';

/** What a kernel finds at each binding: its parameters or a table, at an offset of their own in each call; or storage that it reads, or writes. */
export type Binding = 'params' | 'table' | 'read' | 'write';

/** A kernel, compiled for one layout and variant: equal keys are equal kernels. */
export interface Kernel {
  readonly key: string;
  readonly entryPoint: string;
  readonly bindings: readonly Binding[];
  readonly source: () => string;
}

/** Rows that a workgroup of the prefill kernel takes. They change no bits: where there are more, K and V are read less often, and more registers needed. */
export function prefillRows(layout: PageLayout, variant: Variant): number {
  if (productsOf('prefill', layout, variant) === 'matrix') return MOST_PREFILL_ROWS;
  return layout.headDim > 128 ? 32 : variant.tuning.prefill.rowsPerWorkgroup;
}

/** Sequences with at most so many new tokens are decoded: their keys are cut, so that a long sequence has work for the whole GPU. */
export const DECODE_TOKENS = 16;
const DECODE_WORKGROUP = 64;
const MERGE_WORKGROUP = 128;
const CHECK_WORKGROUP = 64;
const APPEND_WORKGROUP = 64;
export const ENCODE_WORKGROUP = 64;
export const MOVE_WORKGROUP = 64;
export const MERGE_STATES_WORKGROUP = 64;

/** Bits of the status word. */
export const statusBits = { BAD_SLOT: 1, BAD_PAGE: 2, BAD_LENGTH: 4 } as const;

/** Rows that a workgroup of the decode kernel takes: a power of two, and at most the next one from a KV head's query heads. It depends on nothing that a batch could change. */
export const decodeRows = (group: number): number => Math.min(8, 2 ** Math.ceil(Math.log2(group)));

type Constants = { readonly [name: string]: number | boolean };

function declare(constants: Constants): string {
  return Object.entries(constants)
    .map(([name, value]) => (typeof value === 'boolean' ? `const ${name}: bool = ${value};\n` : `const ${name}: u32 = ${value}u;\n`))
    .join('');
}

/** A kernel's arguments, as layout.ts orders them. */
function declareParams(name: string, record: ParamRecord): string {
  const fields = Object.entries(record).map(([field, type]) => `  ${field}: ${type},\n`);
  return `struct ${name} {\n${fields.join('')}}\n`;
}

const join = (...parts: readonly string[]): string => parts.join('\n');

const suffixes: { readonly [F in Format]: string } = { e4m3fn: 'E4m3fn', e5m2: 'E5m2', int8: 'Int8', f16: 'F16', f32: 'F32' };

const isGrouped = ({ granularity }: SideLayout): boolean => granularity === 'group';

/** A side's elements in 16 bytes, and in a group that has scales of its own. */
function sideConstants(side: SideLayout, name: 'K' | 'V', headDim: number): Constants {
  const { bytes } = formats[side.format];
  return { [`${name}_UNITS`]: Math.ceil((headDim * bytes) / 16), [`${name}_UNIT_QUADS`]: 4 / bytes, [`${name}_GROUP_QUADS`]: isGrouped(side) ? side.groupSize / 4 : 0 };
}

/** WGSL that reads the words of 4 elements from a row, and what they are called there. */
const quadWords: { readonly [bytes: number]: string } = {
  1: 'pages[row + quad / 4u][quad % 4u]',
  2: 'select(pages[row + quad / 2u].zw, pages[row + quad / 2u].xy, quad % 2u == 0u)',
  4: 'pages[row + quad]',
};
const unitWords: { readonly [bytes: number]: readonly string[] } = { 1: ['words.x', 'words.y', 'words.z', 'words.w'], 2: ['words.xy', 'words.zw'], 4: ['words'] };

/** WGSL that reads the scale of a quad's group, and multiplies by it: nothing where a row has no groups. */
function groupScaleOf(side: SideLayout, name: 'key' | 'value'): { readonly load: string; readonly times: string } {
  if (!isGrouped(side)) return { load: '', times: '' };
  const [letter] = name;
  return {
    load: `\n  let scale = groupScale(${name}Scales[key], params.${letter}ScaleGroupStride, quad / ${letter.toUpperCase()}_GROUP_QUADS);`,
    times: ' * bitcast<f32>(scale)',
  };
}

/** How the prefill kernel reads 4 dims of its tile's key at a place; and whether one of them is NaN. */
function keyFunction(k: SideLayout): string {
  const suffix = suffixes[k.format];
  const { load, times } = groupScaleOf(k, 'key');
  const orNan = isGrouped(k) ? ' || isNanScale(vec4<u32>(scale))' : '';
  return `fn keyQuad(key: u32, quad: u32) -> Quad {
  let row = keyRows[key];
  let words = ${quadWords[formats[k.format].bytes]};${load}
  return Quad(decode${suffix}(words)${times}, nan${suffix}(words) != 0u${orNan});
}
`;
}

/** The same of a value; and whether one of them is, or may be, no finite number. */
function valueFunction(v: SideLayout): string {
  const suffix = suffixes[v.format];
  const { load, times } = groupScaleOf(v, 'value');
  const orLarge = isGrouped(v) ? ' || isLargeScale(vec4<u32>(scale))' : '';
  return `fn valueQuad(key: u32, quad: u32) -> Quad {
  let row = valueRows[key];
  let words = ${quadWords[formats[v.format].bytes]};${load}
  if (special${suffix}(words) != 0u${orLarge}) { return Quad(decodeAll${suffix}(words, bitcast<f32>(params.nan))${times}, true); }
  return Quad(decode${suffix}(words)${times}, false);
}
`;
}

/** The functions by which the prefill kernel reads keys and values, in terms of their formats'. */
const sideFunctions = ({ k, v }: PageLayout): string => join('struct Quad {\n  quad: vec4<f32>,\n  special: bool,\n}', keyFunction(k), valueFunction(v));

/** The words of 16 elements, four by four, in as many units as they take. */
const dimsWords = (format: Format): readonly string[] => {
  const { bytes } = formats[format];
  return Array.from({ length: bytes }, (_, unit) => unitWords[bytes].map((part) => part.replace('words', `words[${unit}]`))).flat();
};

/** How the decode kernel reads 16 dims of a key or a value; queries and keys it multiplies in f32, or 8-bit keys in f16 where the variant says so. */
function dimsFunctions({ k, v }: PageLayout, products: Products): string {
  const [key, value] = [dimsWords(k.format), dimsWords(v.format)];
  const [kGrouped, vGrouped] = [isGrouped(k), isGrouped(v)];
  const halves = products === 'f16';
  const each = (words: readonly string[], call: (word: string, quad: number) => string, between = ', '): string => words.map(call).join(between);
  // Scales of groups come behind the codes that they are for.
  const times = (grouped: boolean, quad: number): string => (grouped ? ` * bitcast<f32>(words[1][${quad}])` : '');
  return join(
    halves ? join(wgsl[`formats/${k.format as QuantizedFormat}-f16`], wgsl['attend/products-f16']) : wgsl['attend/products'],
    `const K_WORDS: u32 = K_EACH${kGrouped ? ' + 1u' : ''};
const V_WORDS: u32 = V_EACH${vGrouped ? ' + 1u' : ''};
alias KeyWords = array<vec4<u32>, K_WORDS>;
alias ValueWords = array<vec4<u32>, V_WORDS>;
fn nanKey(words: KeyWords) -> u32 {
  return ${each(key, (word) => `nan${suffixes[k.format]}(${word})`, ' | ')}${kGrouped ? ' | u32(isNanScale(words[1]))' : ''};
}
fn decodeKey(words: KeyWords) -> KeyDims {
  return KeyDims(${each(key, (word, quad) => `${halves ? 'decodeKeyQuad' : `decode${suffixes[k.format]}`}(${word})${times(kGrouped, quad)}`)});
}
fn specialValue(words: ValueWords) -> u32 {
  return ${each(value, (word) => `special${suffixes[v.format]}(${word})`, ' | ')}${vGrouped ? ' | u32(isLargeScale(words[1]))' : ''};
}
fn decodeValue(words: ValueWords) -> mat4x4<f32> {
  return mat4x4<f32>(${each(value, (word, quad) => `decode${suffixes[v.format]}(${word})${times(vGrouped, quad)}`)});
}
fn decodeAllValue(words: ValueWords, nan: f32) -> mat4x4<f32> {
  return mat4x4<f32>(${each(value, (word, quad) => `decodeAll${suffixes[v.format]}(${word}, nan)${times(vGrouped, quad)}`)});
}
`,
  );
}

/** Each format's file once, and f16's bits, which q may have too. */
function formatFiles({ k, v }: PageLayout): string {
  return join(wgsl['formats/half'], ...[...new Set([k.format, v.format])].map((format) => wgsl[`formats/${format}`]));
}

const rowConstants = (headDim: number, rows: number): Constants => ({ QUADS: headDim / 4, ROWS: rows });

const call = join(`const MAX_CONTEXT: i32 = ${MAX_CONTEXT};`, declareParams('AttendParams', gpuAttendParams), wgsl['attend/call']);
const units = `const LOG2_E: f32 = ${Math.LOG2E};\nconst LN_2: f32 = ${Math.LN2};\n`;

/** What the two kernels that read keys have in common. */
function keyReader(layout: PageLayout, rows: number, { unpacksF16 }: Variant): string {
  return join(
    declare({
      ...rowConstants(layout.headDim, rows),
      ...sideConstants(layout.k, 'K', layout.headDim),
      ...sideConstants(layout.v, 'V', layout.headDim),
      CUT_KEYS: GPU_CUT_KEYS,
      UNPACKS_F16: unpacksF16,
      ...dtypeConstants,
    }),
    units,
    formatFiles(layout),
    `const K_UNIT: f32 = ${suffixes[layout.k.format].toUpperCase()}_UNIT;\nconst V_UNIT: f32 = ${suffixes[layout.v.format].toUpperCase()}_UNIT;`,
    call,
    wgsl['attend/extras'],
    wgsl['attend/keys'],
    wgsl['attend/groups'],
    wgsl['attend/softmax'],
  );
}

const formatKey = (side: SideLayout): string => `${side.format}${isGrouped(side) ? ` by ${side.groupSize}` : ''}`;

/** What of a layout attention's constants come from. */
const attendKey = ({ headDim, k, v }: PageLayout): string => `${headDim} ${formatKey(k)}/${formatKey(v)}`;

/** Invocations that share a row: each quantizes 4 elements. */
const appendLanes = (headDim: number): number => 2 ** Math.ceil(Math.log2(headDim / 4));

/** Rows that a workgroup of the append kernel takes. */
export const appendRowsAtOnce = (headDim: number): number => APPEND_WORKGROUP / appendLanes(headDim);

const dtypeConstants: Constants = { DTYPE_F32: floatDtypes.f32.id, DTYPE_F16: floatDtypes.f16.id, DTYPE_BF16: floatDtypes.bf16.id };

/** Format by number → what quantize.wgsl wants to know of it. */
function encoders(quantized: readonly QuantizedFormat[]): string {
  const encoding = (format: QuantizedFormat): string => {
    const name = suffixes[format].toUpperCase();
    return `Encoding(${formats[format].id}u, ${name}_MANTISSA_BITS, ${name}_FIRST_EXPONENT, ${name}_LARGEST)`;
  };
  // The last is what remains, also for f16 and f32, which are not quantized.
  const choice = (result: (format: QuantizedFormat) => string): string =>
    quantized.map((format, i) => `  ${i < quantized.length - 1 ? `if (format == ${formats[format].id}u) { return ${result(format)}; }` : `return ${result(format)};`}\n`).join('');
  return join(
    ...quantized.map((format) => wgsl[`formats/${format}`]),
    wgsl.quantize,
    `fn encodingOf(format: u32) -> Encoding {\n${choice(encoding)}}`,
    `fn encodeCode(bits: u32, format: u32) -> u32 {\n${choice((format) => `encode${suffixes[format]}(bits)`)}}\n`,
  );
}

/** Invocations of a row that share a computed scale; all where there is none, or one for each row. */
const appendGroupLanes = (side: SideLayout, lanes: number): number => (isGrouped(side) ? side.groupSize / 4 : lanes);

/** What of a side the append kernel is compiled for. */
const appendSideKey = (side: SideLayout): string => `${formatKey(side)}${side.granularity === 'channel' ? ' by channel' : ''}`;

function makeAppendKernel({ headDim, k, v }: PageLayout): Kernel {
  const lanes = appendLanes(headDim);
  const quantized = [...new Set([k.format, v.format])].filter(isQuantized);
  return {
    key: `append ${appendSideKey(k)}/${appendSideKey(v)} ${lanes}`,
    entryPoint: 'append',
    bindings: ['params', 'read', 'read', 'table', 'write', 'write', 'table'],
    source: () =>
      join(
        declare({
          WORKGROUP: APPEND_WORKGROUP,
          LANES: lanes,
          K_FORMAT: formats[k.format].id,
          V_FORMAT: formats[v.format].id,
          K_CHANNEL: k.granularity === 'channel',
          V_CHANNEL: v.granularity === 'channel',
          K_GROUP_LANES: appendGroupLanes(k, lanes),
          V_GROUP_LANES: appendGroupLanes(v, lanes),
          FORMAT_INT8: formats.int8.id,
          FORMAT_F16: formats.f16.id,
          FORMAT_F32: formats.f32.id,
          QUOTIENT_DIVIDE: quotients.divide,
          QUOTIENT_RECIPROCAL: quotients.reciprocal,
          PRECISION_F32: scalePrecisions.f32,
          PRECISION_F16: scalePrecisions.f16,
          UNPACKS_F16: false,
          BAD_SLOT: statusBits.BAD_SLOT,
          ...dtypeConstants,
        }),
        declareParams('AppendParams', gpuAppendParams),
        wgsl['formats/half'],
        encoders(quantized.length > 0 ? quantized : ['e4m3fn']),
        wgsl.append,
      ),
  };
}

const appendKernelOf = new WeakMap<PageLayout, Kernel>();

/** The kernel that writes keys and values. Made once for a layout, as steps ask for it again and again. */
export function appendKernel(layout: PageLayout): Kernel {
  let kernel = appendKernelOf.get(layout);
  if (!kernel) appendKernelOf.set(layout, (kernel = makeAppendKernel(layout)));
  return kernel;
}

/** The kernel that encodes f32 values whose bits follow each other. */
export function encodeKernel(format: Fp8Format): Kernel {
  return {
    key: `encode ${format}`,
    entryPoint: 'encode',
    bindings: ['params', 'write'],
    source: () => join(declare({ WORKGROUP: ENCODE_WORKGROUP, UNPACKS_F16: false }), wgsl[`formats/${format}`], `fn encodeCode(bits: u32) -> u32 {\n  return encode${suffixes[format]}(bits);\n}\n`, wgsl.encode),
  };
}

/** The kernel that takes tokens out of tensors whose heads come first. */
export const gatherKernel: Kernel = {
  key: 'gather',
  entryPoint: 'gather',
  bindings: ['params', 'table', 'read', 'write'],
  source: () => join(declare({ WORKGROUP: MOVE_WORKGROUP }), declareParams('GatherParams', gpuGatherParams), wgsl.gather),
};

/** The kernel that writes keys, or values, from pages into such a tensor. */
export function dequantizeKernel(format: Format, to: 'f32' | 'f16'): Kernel {
  // What is no 8-bit floating-point format has no use for their constants.
  const fp8 = format === 'e5m2' ? format : 'e4m3fn';
  const name = suffixes[fp8].toUpperCase();
  return {
    key: `dequantize ${format} to ${to}`,
    entryPoint: 'dequantize',
    bindings: ['params', 'table', 'read', 'table', 'write'],
    source: () =>
      join(
        declare({
          WORKGROUP: MOVE_WORKGROUP,
          FORMAT: formats[format].id,
          FORMAT_E5M2: formats.e5m2.id,
          FORMAT_INT8: formats.int8.id,
          FORMAT_F16: formats.f16.id,
          FORMAT_F32: formats.f32.id,
          TO_F16: to === 'f16',
          UNPACKS_F16: false,
        }),
        declareParams('DequantizeParams', gpuDequantizeParams),
        wgsl['formats/half'],
        wgsl[`formats/${fp8}`],
        `const MANTISSA_BITS: u32 = ${name}_MANTISSA_BITS;\nconst FIRST_EXPONENT: u32 = ${name}_FIRST_EXPONENT;\nconst LARGEST: u32 = ${name}_LARGEST;`,
        wgsl.dequantize,
      ),
  };
}

export function decodeKernel(layout: PageLayout, group: number, variant: Variant): Kernel {
  const rows = decodeRows(group);
  const { subgroupSize, tuning } = variant;
  const { loadsAhead } = tuning.decode;
  const products = productsOf('decode', layout, variant);
  const lanes = 2 ** Math.ceil(Math.log2(Math.ceil(layout.headDim / 16)));
  return {
    key: `decode ${attendKey(layout)} ${rows} ${loadsAhead} ${variant.key}`,
    entryPoint: 'decode',
    bindings: ['params', 'table', 'table', 'read', 'table', 'read', 'write', 'write', 'table'],
    source: () =>
      join(
        subgroupSize > 0 ? 'enable subgroups;' : '',
        products === 'f16' ? 'enable f16;' : '',
        declare({
          WORKGROUP: DECODE_WORKGROUP,
          LANES: lanes,
          K_EACH: formats[layout.k.format].bytes,
          V_EACH: formats[layout.v.format].bytes,
          LOADS_AHEAD: loadsAhead,
          BAD_PAGE: statusBits.BAD_PAGE,
          BAD_LENGTH: statusBits.BAD_LENGTH,
        }),
        keyReader(layout, rows, variant),
        dimsFunctions(layout, products),
        subgroupSize > 0 ? join(declare({ SUBGROUP: Math.min(subgroupSize, DECODE_WORKGROUP) }), wgsl['attend/reduce-subgroups']) : wgsl['attend/reduce-plain'],
        wgsl['attend/reduce'],
        wgsl[lanes <= subgroupSize ? 'attend/join-subgroups' : 'attend/join-plain'],
        wgsl['attend/decode'],
      ),
  };
}

export function mergeKernel({ headDim }: PageLayout, group: number): Kernel {
  const rows = decodeRows(group);
  return {
    key: `merge ${headDim} ${rows}`,
    entryPoint: 'merge',
    bindings: ['params', 'table', 'table', 'read', 'table', 'write', 'write'],
    source: () =>
      join(
        declare({ WORKGROUP: MERGE_WORKGROUP, CUT_KEYS: GPU_CUT_KEYS, ...rowConstants(headDim, rows) }),
        units,
        wgsl['formats/half'],
        call,
        wgsl['attend/extras'],
        wgsl['attend/softmax'],
        wgsl['attend/finish'],
        wgsl['attend/merge'],
      ),
  };
}

/** The largest power of two that a row of q may have, so that 8 products with the largest code, as it is decoded, are f16. */
const queryUnits: { readonly [F in QuantizedFormat]: number } = { e4m3fn: 1024, e5m2: 1 / 16, int8: 16 };

const matrixConstants = ({ rows, columns, k, subgroups }: MatrixShape): Constants => ({ MATRIX_M: rows, MATRIX_N: columns, MATRIX_K: k, SUBGROUPS: subgroups, WORKGROUP: PREFILL_WORKGROUP });
const matrixFeatures = 'enable f16, subgroups, chromium_experimental_subgroup_matrix;\n';

/** A shader that tries matrices out, for probe.ts. */
export const matrixProbe = (shape: MatrixShape): string => join(matrixFeatures, declare(matrixConstants(shape)), wgsl['attend/matrix'], wgsl['attend/matrix-probe']);

/** What the prefill kernel is made of besides what all kernels that read keys are: first what comes first in a shader. */
function prefillParts({ k }: PageLayout, { matrix }: Variant, products: Products, rows: number): readonly [string, string] {
  if (products === 'matrix') return [join(matrixFeatures, declare(matrixConstants(matrix!))), join(wgsl['attend/matrix'], wgsl['attend/prefill-matrix'])];
  const body = join(wgsl[rows === 64 ? 'attend/prefill-rows-8' : 'attend/prefill-rows-4'], wgsl['attend/prefill']);
  const constants = declare({ WORKGROUP: PREFILL_WORKGROUP });
  if (products === 'f32') return [constants, join(wgsl['attend/prefill-products'], body)];
  return [join('enable f16;', constants, `const Q_UNIT: f32 = ${queryUnits[k.format as QuantizedFormat]};`), join(wgsl['attend/prefill-products-f16'], body)];
}

export function prefillKernel(layout: PageLayout, variant: Variant): Kernel {
  const rows = prefillRows(layout, variant);
  const products = productsOf('prefill', layout, variant);
  return {
    key: `prefill ${attendKey(layout)} ${rows} ${products === 'matrix' ? variant.key : products}${variant.unpacksF16 ? '' : ' integers'}`,
    entryPoint: 'prefill',
    bindings: ['params', 'table', 'table', 'read', 'table', 'read', 'write', 'write', 'table'],
    source: () => {
      const [head, body] = prefillParts(layout, variant, products, rows);
      return join(head, keyReader(layout, rows, variant), sideFunctions(layout), wgsl['attend/finish'], body);
    },
  };
}

/** Which kernels attend over a layout. */
export interface AttentionKernels {
  readonly decode: Kernel;
  readonly merge: Kernel;
  readonly prefill: Kernel;
}

interface Made extends AttentionKernels {
  readonly group: number;
  readonly variant: Variant;
}

const attentionKernelsOf = new WeakMap<PageLayout, Made>();

/** Made once for a layout, as steps ask for them again and again. */
export function attentionKernels(layout: PageLayout, group: number, variant: Variant): AttentionKernels {
  let made = attentionKernelsOf.get(layout);
  if (made?.group !== group || made.variant !== variant) {
    made = { group, variant, decode: decodeKernel(layout, group, variant), merge: mergeKernel(layout, group), prefill: prefillKernel(layout, variant) };
    attentionKernelsOf.set(layout, made);
  }
  return made;
}

/** Joins what attention over two parts of the keys gave. */
export const mergeStatesKernel: Kernel = {
  key: 'merge states',
  entryPoint: 'mergeStates',
  bindings: ['params', 'read', 'read', 'read', 'read', 'write', 'write'],
  source: () => join(declare({ WORKGROUP: MERGE_STATES_WORKGROUP }), units, wgsl['attend/merge-states']),
};

/** Looks through tables that lie in GPU buffers. */
export const checkKernel: Kernel = {
  key: 'check',
  entryPoint: 'check',
  bindings: ['params', 'table', 'table', 'table', 'write'],
  source: () => join(declare({ WORKGROUP: CHECK_WORKGROUP, ...statusBits, ...rowConstants(8, 1) }), call, wgsl['attend/check']),
};
