/** Which kernels a device gets: the one place where that is decided. */
import { formats } from '../formats.js';
import type { PageLayout } from '../layout.js';
import { defaultTuning, type Tuning } from './tuning.js';

/** Matrices that a device's subgroups multiply: f16, rows × k times k × columns, with sums in f32. */
export interface MatrixShape {
  readonly rows: number;
  readonly columns: number;
  readonly k: number;
  /** Subgroups of a workgroup of {@link PREFILL_WORKGROUP}. */
  readonly subgroups: number;
}

/** What is known of a device that kernels differ by. */
export interface Variant {
  /** Invocations of a subgroup, at least; 0 where kernels do without. */
  readonly subgroupSize: number;
  /** Whether queries and 8-bit keys are multiplied in f16: within 5e-3 of exact attention then, not 1e-4. Only where it is asked for. */
  readonly f16: boolean;
  /** Whether `unpack2x16float` keeps subnormal numbers: FP8 codes then are decoded as f16 of the same bits, else by integers. */
  readonly unpacksF16: boolean;
  /** Which matrices prefill multiplies, where it does. Only where it is asked for, as f16. */
  readonly matrix?: MatrixShape;
  /** How kernels share out their work. */
  readonly tuning: Tuning;
  /** Tells variants apart in names. */
  readonly key: string;
}

/** What attention multiplies in. */
export type Products = 'f32' | 'f16' | 'matrix';

interface Rule {
  readonly kernels: readonly ('decode' | 'prefill')[];
  readonly products: Products;
  /** What the device must have. */
  readonly has: (variant: Variant) => boolean;
  /** The largest head dimension. */
  readonly headDim: number;
  /** Which sides must be f16 exactly as they are decoded: 8-bit codes are, where no scale of a group is multiplied in. */
  readonly halves: readonly ('k' | 'v')[];
}

/** The first rule that fits counts. All but f32 are within 5e-3 of exact attention, f32 is within 1e-4. */
const rules: readonly Rule[] = [
  { kernels: ['prefill'], products: 'matrix', has: ({ matrix }) => matrix !== undefined, headDim: 128, halves: ['k', 'v'] },
  { kernels: ['prefill'], products: 'f16', has: ({ f16 }) => f16, headDim: 256, halves: ['k', 'v'] },
  { kernels: ['decode'], products: 'f16', has: ({ f16 }) => f16, headDim: 256, halves: ['k'] },
  { kernels: ['decode', 'prefill'], products: 'f32', has: () => true, headDim: 256, halves: [] },
];

export function productsOf(kernel: 'decode' | 'prefill', layout: PageLayout, variant: Variant): Products {
  const isHalf = (side: 'k' | 'v'): boolean => formats[layout[side].format].bytes === 1 && layout[side].granularity !== 'group';
  const fits = ({ kernels, has, headDim, halves }: Rule): boolean => kernels.includes(kernel) && has(variant) && layout.headDim <= headDim && halves.every(isHalf);
  return rules.find(fits)!.products;
}

/** Invocations of a prefill workgroup: what WebGPU's default limits allow in a row, and at least as many as any subgroup has. */
export const PREFILL_WORKGROUP = 128;
/** Rows of a prefill workgroup, where there are enough. */
export const MOST_PREFILL_ROWS = 64;
/** Keys of a tile that is multiplied as matrices. */
const MATRIX_KEYS = 32;
/** Workgroup memory that the matrix kernel takes, at most: more than WebGPU's default. */
export const MATRIX_MEMORY = 28672;

/** What an adapter says of its subgroups, where it has the feature: not part of WebGPU's types yet. */
export interface SubgroupFacts {
  readonly subgroupMinSize?: number;
  readonly subgroupMaxSize?: number;
  readonly subgroupMatrixConfigs?: Iterable<{ readonly componentType: string; readonly resultComponentType: string; readonly M: number; readonly N: number; readonly K: number }>;
}

/**
 * The largest matrices of an adapter that the prefill kernel can be made of, if any. Each subgroup has rows of its own: how many
 * there are must be known, so their size must not vary.
 */
export function matrixShapeOf({ subgroupMinSize = 0, subgroupMaxSize, subgroupMatrixConfigs = [] }: SubgroupFacts): MatrixShape | undefined {
  const subgroups = PREFILL_WORKGROUP / subgroupMinSize;
  if (subgroupMinSize !== subgroupMaxSize || !Number.isInteger(subgroups)) return undefined;
  const shapes = [...subgroupMatrixConfigs]
    .filter(({ componentType, resultComponentType }) => componentType === 'f16' && resultComponentType === 'f32')
    .map(({ M: rows, N: columns, K: k }) => ({ rows, columns, k, subgroups }))
    .filter(({ rows, columns, k }) => MOST_PREFILL_ROWS % (rows * subgroups) === 0 && [rows, columns, k].every((side) => MATRIX_KEYS % side === 0 && side >= 8));
  const size = ({ rows, columns, k }: MatrixShape): number => rows * columns * k;
  return shapes.sort((a, b) => size(b) - size(a))[0];
}

export function variantOf(facts: Omit<Variant, 'key' | 'tuning'>, tuning = defaultTuning({ vendor: '', architecture: '' })): Variant {
  const { subgroupSize, f16, unpacksF16, matrix } = facts;
  const shape = matrix ? `matrices-${matrix.rows}x${matrix.columns}x${matrix.k}` : '';
  const parts = [subgroupSize > 0 ? `subgroups-${subgroupSize}` : 'plain', f16 ? 'f16' : '', shape, unpacksF16 ? '' : 'integers'];
  return { ...facts, tuning, key: parts.filter(Boolean).join(' ') };
}
