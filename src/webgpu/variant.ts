/** Which kernels a device gets: the one place where that is decided. */
import { formats } from '../formats.js';
import type { PageLayout } from '../layout.js';
import { defaultTuning, type Tuning } from './tuning.js';

/** What is known of a device that kernels differ by. */
export interface Variant {
  /** Invocations of a subgroup, at least; 0 where kernels do without. */
  readonly subgroupSize: number;
  /** Whether queries and 8-bit keys are multiplied in f16: within 5e-3 of exact attention then, not 1e-4. Only where it is asked for. */
  readonly f16: boolean;
  /** Whether `unpack2x16float` keeps subnormal numbers: FP8 codes then are decoded as f16 of the same bits, else by integers. */
  readonly unpacksF16: boolean;
  /** How kernels share out their work. */
  readonly tuning: Tuning;
  /** Tells variants apart in names. */
  readonly key: string;
}

/** What attention multiplies in. */
export type Products = 'f32' | 'f16';

interface Rule {
  readonly kernels: readonly ('decode' | 'prefill')[];
  readonly products: Products;
  /** What the device must have. */
  readonly has: (variant: Variant) => boolean;
  /** Which sides' codes must be f16 exactly, as all 8-bit ones are. */
  readonly eightBit: readonly ('k' | 'v')[];
}

/** The first rule that fits counts. All but f32 are within 5e-3 of exact attention, f32 is within 1e-4. */
const rules: readonly Rule[] = [
  { kernels: ['decode'], products: 'f16', has: ({ f16 }) => f16, eightBit: ['k'] },
  { kernels: ['prefill'], products: 'f16', has: ({ f16 }) => f16, eightBit: ['k', 'v'] },
  { kernels: ['decode', 'prefill'], products: 'f32', has: () => true, eightBit: [] },
];

export function productsOf(kernel: 'decode' | 'prefill', layout: PageLayout, variant: Variant): Products {
  const fits = ({ kernels, has, eightBit }: Rule): boolean => kernels.includes(kernel) && has(variant) && eightBit.every((side) => formats[layout[side].format].bytes === 1);
  return rules.find(fits)!.products;
}

export function variantOf({ subgroupSize, f16, unpacksF16 }: Omit<Variant, 'key' | 'tuning'>, tuning = defaultTuning({ vendor: '', architecture: '' })): Variant {
  const parts = [subgroupSize > 0 ? `subgroups-${subgroupSize}` : 'plain', f16 ? 'f16' : '', unpacksF16 ? '' : 'integers'];
  return { subgroupSize, f16, unpacksF16, tuning, key: parts.filter(Boolean).join(' ') };
}
