/** What other kernels do, each as a change to the right way of making codes and scales. */
import type { Fp8Format } from '../formats.js';
import type { Quotient } from '../recipe.js';
import { float8Encoder, fnuzOf, int8Encoder, roundToHalf, signedNaN, cudaNaN, type Encoder, type Rounding } from './encoders.js';
import type { Making, Subject } from './making.js';

/** A well-known way to come to other codes. */
export interface Dialect {
  /** What reports call it. */
  readonly name: string;
  /** One sentence. */
  readonly summary: string;
  /** Where it is from. */
  readonly source: string;
}

/** @internal */
export interface CodeDialect extends Dialect {
  /** Which step it takes otherwise. A kernel may do so with several. */
  readonly step: 'cast' | 'quotient' | 'scale' | 'rows';
  /** The ways to make what was found, were it this; none where it cannot be. */
  readonly ways: (right: Making, subject: Subject) => readonly Making[];
}

/** A way with another encoder for FP8. */
const encodes = (encoderOf: (format: Fp8Format) => Encoder) => (right: Making, { format }: Subject): Making[] =>
  format === 'int8' ? [] : [{ ...right, encode: encoderOf(format) }];

/** The same for encoders that keep a NaN's sign. Of those that arise, x86 makes negative ones, others positive. */
const keepsSign = (encoderOf: (format: Fp8Format) => Encoder): CodeDialect['ways'] => (right, subject) =>
  encodes(encoderOf)(right, subject).flatMap((way) => (subject.given?.unscaled ? [way] : [way, { ...way, arisingNaN: 0xffc00000 }]));

/** LLVM keeps the upper bits of a NaN's payload, and makes it quiet. */
const payloadNaN = (format: Fp8Format) => (bits: number): number => (format === 'e4m3fn' ? signedNaN(bits) : ((bits >>> 24) & 0x80) | 0x7e | ((bits >>> 21) & 1));

/** The NaN of ml_dtypes: of e5m2 the quiet one, as Eigen has it. */
const quietNaN = (format: Fp8Format) => (bits: number): number => (format === 'e4m3fn' ? signedNaN(bits) : ((bits >>> 24) & 0x80) | 0x7e);

function rounds(rounding: Rounding): CodeDialect['ways'] {
  return (right, { format, saturate, given, recipe }) => {
    if (format === 'int8') return [{ ...right, encode: int8Encoder(given ? -127 : (recipe.int8?.least ?? -127), rounding) }];
    return [{ ...right, encode: float8Encoder(format, rounding, saturate ? 'saturate' : 'none', cudaNaN) }];
  };
}

/** Codes of AMD's formats. */
function fnuz(right: Making, { format }: Subject): Making[] {
  if (format === 'int8') return [];
  return (['saturate', 'none'] as const).map((overflow) => ({ ...right, encode: float8Encoder(fnuzOf[format], 'even', overflow, cudaNaN) }));
}

/** The same with scales for another number than the largest of E4M3FN. */
const fnuzFor = (max: number): CodeDialect['ways'] => (right, subject) =>
  subject.format === 'e4m3fn' && !subject.given ? fnuz(right, subject).map((way) => ({ ...way, max })) : [];

/** Ways that there are only where values have a scale. */
const scaled = (ways: CodeDialect['ways']): CodeDialect['ways'] => (right, subject) => (subject.given?.unscaled ? [] : ways(right, subject));

const quotient = (rule: Quotient): CodeDialect['ways'] =>
  scaled((right, { given }) => {
    // Given scales have no amax.
    if (right.recipe.quotient === rule || (given && rule === 'max-over-amax')) return [];
    return [{ ...right, recipe: { ...right.recipe, quotient: rule } }];
  });

const word = new Int32Array(1);
const float = new Float32Array(word.buffer);

/** The f32 so many steps further. */
function stepped(scale: number, steps: number): number {
  float[0] = scale;
  if (scale > 0 && scale < Infinity) word[0] += steps;
  return float[0];
}

/** Off by at most one step, and stored as it is: then what was found says which. */
function oneUlp(right: Making, { given, found }: Subject): Making[] {
  const { scales } = found;
  const uniform = [1, -1].map((steps): Making => ({ ...right, divisor: (scale) => stepped(scale, steps) }));
  if (given) return uniform;
  const product = { ...right, multipliesAmax: true };
  if (scales === undefined) return [...uniform, product];
  const near = (scale: number, at: number): number => (scales[at] === stepped(scale, 1) || scales[at] === stepped(scale, -1) ? scales[at] : scale);
  return [{ ...right, divisor: near, stored: near }, { ...right, stored: near }, ...uniform, product];
}

/** Whether found scales are looked at: else nothing tells what was stored. */
const looksAtScales = ({ given, found }: Subject): boolean => !given && found.scales !== undefined;

const inverse = (scale: number): number => Math.fround(1 / scale);

const isHalf = ({ recipe }: Making): boolean => recipe.scalePrecision === 'f16';

/** Rows taken from, or put, where the other layout has them. */
const ordered = (layout: Subject['layout']): CodeDialect['ways'] => (right, subject) => {
  if (subject.layout !== layout) return [];
  const { input, found } = subject.swaps;
  const apart = looksAtScales(subject) ? (['codes written', 'scales written'] as const) : [];
  const orders = [...(found ? (['written', ...apart] as const) : []), ...(input ? (['read'] as const) : [])];
  return orders.map((order) => ({ ...right, order }));
};

function otherSide(right: Making, { others, otherRows }: Subject): Making[] {
  if (others && right.given) return [{ ...right, given: others }];
  if (!otherRows || right.given) return [];
  return [{ divisor: otherRows, stored: otherRows }, { divisor: otherRows }, { stored: otherRows }].map((measured) => ({ ...right, measured }));
}

/** @internal all that `check` knows of. The first ones change codes only, whatever the scale. */
export const codeDialects: readonly CodeDialect[] = [
  {
    name: 'non-saturating', step: 'cast', summary: 'too large becomes NaN (e4m3fn) or infinity (e5m2), not the largest finite code',
    source: 'CUDA, cuda_fp8.h: __NV_NOSAT',
    ways: (right, subject) => (subject.saturate ? encodes((format) => float8Encoder(format, 'even', 'none', cudaNaN))(right, subject) : []),
  },
  {
    name: 'saturating', step: 'cast', summary: 'too large becomes the largest finite code, not NaN or infinity',
    source: 'CUDA, cuda_fp8.h: __NV_SATFINITE',
    ways: (right, subject) => (subject.saturate ? [] : encodes((format) => float8Encoder(format, 'even', 'saturate', cudaNaN))(right, subject)),
  },
  {
    name: 'torch', step: 'cast', summary: 'a cast without a clamp: too large becomes NaN (e4m3fn) or infinity (e5m2), and NaN keeps its sign',
    source: 'PyTorch, c10/util/Float8_e4m3fn.h and Float8_e5m2.h',
    ways: keepsSign((format) => float8Encoder(format, 'even', 'none', signedNaN)),
  },
  {
    name: 'torch, clamped', step: 'cast', summary: 'a clamp to the largest finite value, then a cast: NaN keeps its sign',
    source: 'PyTorch, c10/util/Float8_e4m3fn.h and Float8_e5m2.h, behind torch.clamp',
    ways: keepsSign((format) => float8Encoder(format, 'even', 'saturate', signedNaN)),
  },
  {
    name: 'ml_dtypes', step: 'cast', summary: 'astype without a clip: too large becomes NaN (e4m3fn) or infinity (e5m2), NaN keeps its sign and in e5m2 is 0x7E',
    source: 'ml_dtypes, include/float8.h: ConvertImpl',
    ways: keepsSign((format) => float8Encoder(format, 'even', 'none', quietNaN(format))),
  },
  {
    name: 'ml_dtypes, clipped', step: 'cast', summary: 'np.clip to the largest finite value, then astype: NaN keeps its sign and in e5m2 is 0x7E',
    source: 'ml_dtypes, include/float8.h: ConvertImpl, behind np.clip',
    ways: keepsSign((format) => float8Encoder(format, 'even', 'saturate', quietNaN(format))),
  },
  {
    name: 'ml_dtypes, saturating', step: 'cast', summary: 'as ml_dtypes, but finite values saturate; infinity does not',
    source: 'ml_dtypes, include/float8.h: ConvertImpl with kSaturate',
    ways: keepsSign((format) => float8Encoder(format, 'even', 'saturate finite', quietNaN(format))),
  },
  {
    name: 'LLVM', step: 'cast', summary: 'too large becomes NaN (e4m3fn) or infinity (e5m2), and NaN keeps its sign and in e5m2 a bit of its payload',
    source: 'LLVM, APFloat.cpp: IEEEFloat::convert to Float8E4M3FN and Float8E5M2',
    ways: keepsSign((format) => float8Encoder(format, 'even', 'none', payloadNaN(format))),
  },
  {
    name: 'FNUZ', step: 'cast', summary: 'codes of E4M3FNUZ or E5M2FNUZ: the bias is one more, and 0x80 is NaN',
    source: 'AMD CDNA 3 (MI300); torch.float8_e4m3fnuz',
    ways: fnuz,
  },
  {
    name: 'FNUZ, scale for 240', step: 'cast', summary: 'codes of E4M3FNUZ, and scales amax / 240, its largest number',
    source: 'AMD CDNA 3 (MI300); torch.finfo(torch.float8_e4m3fnuz).max',
    ways: scaled(fnuzFor(240)),
  },
  {
    name: 'FNUZ, scale for 224', step: 'cast', summary: 'codes of E4M3FNUZ, and scales amax / 224',
    source: "vLLM on ROCm, which takes 224 for E4M3FNUZ's largest number",
    ways: scaled(fnuzFor(224)),
  },
  { name: 'round-half-away', step: 'cast', summary: 'ties are rounded away from zero, not to even', source: 'C: roundf, or adding half a unit and cutting off', ways: rounds('away') },
  { name: 'truncation', step: 'cast', summary: 'rounded toward zero', source: 'a shift of the bits without rounding; CUDA: cudaRoundZero', ways: rounds('zero') },
  { name: 'divide', step: 'quotient', summary: 'x / scale in place of a product', source: 'vLLM, csrc/cache_kernels.cu: reshape_and_cache_flash', ways: quotient('divide') },
  { name: 'reciprocal', step: 'quotient', summary: 'x · (1 / scale) in place of what is asked for', source: "vLLM's per-token-head kernel; a compiler's fast division (nvcc -use_fast_math)", ways: quotient('reciprocal') },
  { name: 'max-over-amax', step: 'quotient', summary: 'x · (max / amax) in place of what is asked for', source: 'Transformer Engine, common/recipe: compute_scale', ways: quotient('max-over-amax') },
  { name: 'scale one ulp off', step: 'scale', summary: 'scales are the f32 next to the right one', source: 'WGSL and fast-math division, which may be 2.5 ulp off; amax · (1 / max)', ways: scaled(oneUlp) },
  {
    name: 'f16-rounded scale', step: 'scale', summary: 'scales are rounded to f16, and values divided by those',
    source: 'a cache whose scales are f16',
    ways: scaled((right) => (isHalf(right) ? [] : [{ ...right, divisor: roundToHalf, stored: roundToHalf }])),
  },
  {
    name: 'scale stored as f16', step: 'scale', summary: 'scales are rounded to f16 when they are stored, values divided by the unrounded ones',
    source: 'ferrum, KvCacheQuant: the recipe ferrum-int8',
    ways: (right, subject) => (looksAtScales(subject) && (subject.recipe.scalePrecision ?? 'f32') === 'f32' ? [{ ...right, stored: roundToHalf }] : []),
  },
  {
    name: 'divided by an f16 scale', step: 'scale', summary: 'values are divided by scales rounded to f16, unrounded ones are stored',
    source: 'a kernel that quantizes in f16',
    ways: (right, subject) => (looksAtScales(subject) && !isHalf(right) ? [{ ...right, divisor: roundToHalf }] : []),
  },
  {
    name: 'inverse scale', step: 'scale', summary: '1 / scale is stored, or a given scale is multiplied with',
    source: "Transformer Engine, which has both: scale is multiplied with, scale_inv is what codes are multiplied with to be read",
    ways: scaled((right, subject) => (subject.given ? [{ ...right, divisor: inverse }] : looksAtScales(subject) ? [{ ...right, stored: inverse }] : [])),
  },
  { name: 'HND for NHD', step: 'rows', summary: 'heads before tokens, where tokens are before heads', source: 'vLLM, VLLM_KV_CACHE_LAYOUT; FlashInfer, kv_layout', ways: ordered('NHD') },
  { name: 'NHD for HND', step: 'rows', summary: 'tokens before heads, where heads are before tokens', source: 'vLLM, VLLM_KV_CACHE_LAYOUT; FlashInfer, kv_layout', ways: ordered('HND') },
  { name: 'K scale used for V', step: 'rows', summary: "values have the keys' scales", source: 'a call with k_scale in both places', ways: otherSide },
];
