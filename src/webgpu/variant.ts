/** Which kernels a device gets: the one place where that is decided. */

/** What is known of a device that kernels differ by. */
export interface Variant {
  /** Invocations of a subgroup; 0 where kernels do without. */
  readonly subgroupSize: number;
  /** Whether queries and 8-bit keys are multiplied in f16: within 5e-3 of exact attention then, not 1e-4. Only where it is asked for. */
  readonly f16: boolean;
  /** Whether `unpack2x16float` keeps subnormal numbers: FP8 codes then are decoded as f16 of the same bits, else by integers. */
  readonly unpacksF16: boolean;
  /** Tells variants apart in names. */
  readonly key: string;
}

export function variantOf({ subgroupSize, f16, unpacksF16 }: Omit<Variant, 'key'>): Variant {
  const parts = [subgroupSize > 0 ? `subgroups-${subgroupSize}` : 'plain', f16 ? 'f16' : '', unpacksF16 ? '' : 'integers'];
  return { subgroupSize, f16, unpacksF16, key: parts.filter(Boolean).join(' ') };
}
