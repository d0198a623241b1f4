/** Tensors without gaps: the order of their axes says where everything lies. */
import type { ScaleStrides, SideTensor, TensorLayout, TensorStrides } from '../backend.js';
import { checkInteger, type PageLayout, type SideLayout } from '../layout.js';
import { formats } from '../formats.js';

/** What a tensor's axes count, beside the dims of a row, which are the last. `side` is keys, then values. */
export type Axis = 'block' | 'layer' | 'side' | 'token' | 'head';

/** What a tensor of all layers is asked for. */
export interface LayerOf {
  /** From 0. */
  readonly index: number;
  /** How many layers the tensor holds. */
  readonly count: number;
}

interface RowMajor {
  /** From the outermost in. Without `side`, keys and values are tensors of their own. */
  readonly axes: readonly Axis[];
  /** The same of the scales. Default: as the codes. */
  readonly scaleAxes?: readonly Axis[];
  readonly blocks: number;
  readonly layer?: LayerOf;
  /** Each row of codes is followed by its scale, an f32. */
  readonly inlineScales?: boolean;
}

/** Scales of a token and head in the page. */
export const groupsOf = ({ headDim }: PageLayout, { groupSize }: SideLayout): number => (groupSize === 0 ? 0 : headDim / groupSize);

/** Where rows of `width` elements lie. */
function stridesOf(axes: readonly Axis[], page: PageLayout, { blocks, layer }: RowMajor, side: 0 | 1, width: number): TensorStrides {
  const extents = { block: blocks, layer: layer?.count ?? 1, side: 2, token: page.blockSize, head: page.kvHeads };
  const strides = { block: 0, layer: 0, side: 0, token: 0, head: 0 };
  axes.reduceRight((stride, axis) => {
    strides[axis] = stride;
    return stride * extents[axis];
  }, width);
  return { offset: side * strides.side + (layer?.index ?? 0) * strides.layer, block: strides.block, token: strides.token, head: strides.head };
}

/** An f32 among codes of 8 bits. */
const SCALE_CODES = 4;

function inlineScalesOf(codes: TensorStrides, headDim: number): ScaleStrides {
  const { offset, block, token, head } = codes;
  return { offset: (offset + headDim) / SCALE_CODES, block: block / SCALE_CODES, token: token / SCALE_CODES, head: head / SCALE_CODES, group: 1 };
}

function sideTensor(page: PageLayout, name: 'k' | 'v', options: RowMajor): SideTensor {
  const { axes, scaleAxes = axes, inlineScales } = options;
  const side = page[name];
  if (inlineScales && side.granularity !== 'token-head') throw new TypeError(`"inlineScales" expected granularity token-head of "${name}", got ${side.granularity}`);
  const index = name === 'k' ? 0 : 1;
  const codes = stridesOf(axes, page, options, index, inlineScales ? page.headDim + SCALE_CODES : page.headDim);
  const groups = groupsOf(page, side);
  if (groups === 0) return { codes };
  return { codes, scales: inlineScales ? inlineScalesOf(codes, page.headDim) : { ...stridesOf(scaleAxes, page, options, index, groups), group: 1 } };
}

/** @throws TypeError or RangeError naming the option that does not fit */
export function rowMajorLayout(page: PageLayout, options: RowMajor): TensorLayout {
  const blocks = checkInteger(options.blocks, 'blocks', 0);
  if (options.layer) checkInteger(options.layer.index, 'layer.index', 0, checkInteger(options.layer.count, 'layer.count', 1) - 1);
  if (options.axes.includes('side') && formats[page.k.format].bytes !== formats[page.v.format].bytes) {
    throw new TypeError(`"page" expected keys and values of one size, as they lie in one tensor, got ${page.k.format} and ${page.v.format}`);
  }
  return { tokens: blocks * page.blockSize, k: sideTensor(page, 'k', options), v: sideTensor(page, 'v', options) };
}
