/** Which kernels a device gets: the one place where that is decided. */

/** What is known of a device that kernels differ by. */
export interface Variant {
  /** Invocations of a subgroup; 0 where kernels do without. */
  readonly subgroupSize: number;
  /** Whether `unpack2x16float` keeps subnormal numbers: FP8 codes then are decoded as f16 of the same bits, else by integers. */
  readonly unpacksF16: boolean;
  /** Tells variants apart in names. */
  readonly key: string;
}

export const variantOf = (subgroupSize: number, unpacksF16: boolean): Variant => ({
  subgroupSize,
  unpacksF16,
  key: `${subgroupSize > 0 ? `subgroups-${subgroupSize}` : 'plain'}${unpacksF16 ? '' : ' integers'}`,
});
