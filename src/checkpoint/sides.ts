/** Scale tensors as the scales of layers: their shapes understood, and those that speak of the same side made one. */
import { checkScale } from '../scale.js';
import { showShape } from '../files/tensor.js';
import type { GivenGranularity } from '../kv-scales.js';
import type { ModelShape } from './config.js';
import type { ScaleTensor } from './tensors.js';

export type Side = 'k' | 'v' | 'q';

/** The scales of one side of a layer, row-major. */
export interface SideScales {
  readonly source: ScaleTensor;
  readonly granularity: GivenGranularity;
  /** 1 where all heads share. */
  readonly heads: number;
  /** 1 where all dims share. */
  readonly dims: number;
  /** [heads, dims] */
  readonly values: Float32Array;
}

/** The sides of one layer for which there are scales. */
export type LayerSides = { readonly [S in Side]?: SideScales };

const sidesOf = ({ side }: ScaleTensor): readonly Side[] => (side === 'kv' ? ['k', 'v'] : [side]);

/** Of a tensor and its reciprocal twin: the two are rounded. */
const TWIN_TOLERANCE = 1e-3;

/**
 * The scales of each layer, by its number.
 * @param stated the granularity that the checkpoint states, if it does
 * @throws RangeError naming the tensor that is no scale, has a shape that does not fit, or contradicts another
 */
export function readSides(tensors: readonly ScaleTensor[], shape: ModelShape, stated: GivenGranularity | undefined): Map<number, LayerSides> {
  const layers = new Map<number, { [S in Side]?: SideScales }>();
  // Reciprocals come last: where there is the scale itself, it is taken.
  for (const tensor of [...tensors].sort((a, b) => Number(a.reciprocal) - Number(b.reciprocal))) {
    const layer = layers.get(tensor.layer) ?? {};
    layers.set(tensor.layer, layer);
    for (const side of sidesOf(tensor)) {
      const scales = understand(tensor, side, shape, stated);
      const before = layer[side];
      if (before) checkAgreement(before, scales);
      else layer[side] = scales;
    }
  }
  return layers;
}

function checkAgreement(before: SideScales, scales: SideScales): void {
  const tolerance = before.source.reciprocal === scales.source.reciprocal ? 0 : TWIN_TOLERANCE;
  const agrees = before.values.length === scales.values.length && before.values.every((value, i) => Math.abs(value - scales.values[i]) <= tolerance * value);
  if (!agrees) throw new RangeError(`"${nameOf(scales.source)}" expected the scales of "${nameOf(before.source)}", as both are of the same layer, got others`);
}

export const nameOf = ({ file, tensor }: ScaleTensor): string => `${file}: ${tensor}`;

function understand(source: ScaleTensor, side: Side, shape: ModelShape, stated: GivenGranularity | undefined): SideScales {
  const values = source.values.map((value, i) => {
    const argument = source.values.length === 1 ? nameOf(source) : `${nameOf(source)}[${i}]`;
    const scale = checkScale(value, argument);
    return source.reciprocal ? checkScale(1 / scale, argument) : scale;
  });
  const heads = side === 'q' ? shape.queryHeads : shape.kvHeads;
  // Engines measure queries per KV head, too.
  const extent = extentOf(source, heads, shape.headDim, stated) ?? (side === 'q' ? extentOf(source, shape.kvHeads, shape.headDim, stated) : undefined);
  if (extent) return { source, values, ...extent };
  const wanted = heads === undefined ? '[1], [heads] or [heads, 1, dim]' : `[1], [${heads}]${shape.headDim === undefined ? '' : ` or [${heads}, 1, ${shape.headDim}]`}`;
  throw new RangeError(`"${nameOf(source)}" expected shape ${wanted}, got ${showShape(source.shape)}`);
}

type Extent = Pick<SideScales, 'granularity' | 'heads' | 'dims'>;

/** Heads and dims of a tensor, sizes of 1 wherever they stand. Where the model is unknown, as many as the shape says. */
function extentOf({ shape, values: { length } }: ScaleTensor, heads: number | undefined, headDim: number | undefined, stated: GivenGranularity | undefined): Extent | undefined {
  const sizes = shape.filter((size) => size !== 1);
  if (length === 1) {
    // Of a single head both are the same number.
    return { granularity: stated === 'head' && (heads ?? 1) === 1 ? 'head' : 'tensor', heads: 1, dims: 1 };
  }
  if (sizes.length > 2) return undefined;
  const isChannel = sizes.length === 2 || (heads === undefined ? shape.length >= 3 && shape.at(-1) === length : heads !== length);
  if (!isChannel) return { granularity: 'head', heads: length, dims: 1 };
  const rows = sizes.length === 2 ? sizes[0] : (heads ?? 1);
  const dims = length / rows;
  // All head dims are multiples of 8.
  const fits = dims % 8 === 0 && (heads === undefined || rows === heads) && (headDim === undefined || dims === headDim);
  return fits ? { granularity: 'channel', heads: rows, dims } : undefined;
}

/**
 * Scales of queries in the shape of the keys': the largest of what comes together, so of all query heads that share a KV head.
 * @param like the keys' scales
 */
export function reduceQueries({ heads, dims, values }: SideScales, like: Pick<SideScales, 'heads' | 'dims'>): Float32Array {
  const reduced = new Float32Array(like.heads * like.dims);
  const allHeads = Math.max(heads, like.heads);
  const allDims = Math.max(dims, like.dims);
  for (let head = 0; head < allHeads; head++) {
    for (let dim = 0; dim < allDims; dim++) {
      const from = Math.floor((head * heads) / allHeads) * dims + Math.floor((dim * dims) / allDims);
      const to = Math.floor((head * like.heads) / allHeads) * like.dims + Math.floor((dim * like.dims) / allDims);
      reduced[to] = Math.max(reduced[to], values[from]);
    }
  }
  return reduced;
}
