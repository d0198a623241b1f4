/** How kernels share out their work on an adapter: that decides how soon results are there, and not a bit of what they are. */
import { describe } from '../formats.js';
import { checkInteger } from '../layout.js';

const choices = {
  loadsAhead: [2, 4, 8],
  cutsPerWorkgroup: [1, 2, 4, 8],
  rowsPerWorkgroup: [32, 64],
} as const;

/** What `tuneWebgpu` finds and `requestWebgpuBackend({ tuning })` takes; JSON keeps it. */
export interface Tuning {
  /** The adapter that it is for, as WebGPU names it: others do without it. */
  readonly vendor: string;
  /** The adapter's architecture, as WebGPU names it. */
  readonly architecture: string;
  /** Whether kernels use subgroups, where the device has them and they are among the optional features. */
  readonly subgroups: boolean;
  /** Of attention of few rows per sequence. */
  readonly decode: {
    /** Loads of 16 bytes that each invocation has under way. */
    readonly loadsAhead: (typeof choices.loadsAhead)[number];
    /** Cuts of the keys that a workgroup takes, at most. */
    readonly cutsPerWorkgroup: (typeof choices.cutsPerWorkgroup)[number];
    /** Workgroups that the GPU needs to have work for all of it: a workgroup takes more than one cut where more are left. */
    readonly leastWorkgroups: number;
  };
  /** Of attention of many rows per sequence. */
  readonly prefill: {
    /** Rows that a workgroup takes, where the head dimension leaves room for them. */
    readonly rowsPerWorkgroup: (typeof choices.rowsPerWorkgroup)[number];
  };
}

export { choices as tuningChoices };

/** The values of a tuning, without whose they are. */
type Values = Pick<Tuning, 'subgroups' | 'decode' | 'prefill'>;

const values = (rowsPerWorkgroup: Tuning['prefill']['rowsPerWorkgroup'], decode: Tuning['decode']): Values => ({ subgroups: true, decode, prefill: { rowsPerWorkgroup } });

/**
 * Until `fp8-kv tune` has been run. None of it but SwiftShader's row has been measured: it is what registers and units let
 * expect. Large GPUs hide a load's way behind many others; those of phones have half the registers for each invocation.
 */
const defaults: readonly { readonly vendor: RegExp; readonly architecture?: RegExp; readonly values: Values }[] = [
  { vendor: /^(nvidia|amd)$/, values: values(64, { loadsAhead: 4, cutsPerWorkgroup: 2, leastWorkgroups: 2048 }) },
  { vendor: /^apple$/, values: values(32, { loadsAhead: 4, cutsPerWorkgroup: 2, leastWorkgroups: 512 }) },
  { vendor: /^intel$/, values: values(32, { loadsAhead: 2, cutsPerWorkgroup: 2, leastWorkgroups: 512 }) },
  { vendor: /^(qualcomm|arm|img-tec|samsung)$/, values: values(32, { loadsAhead: 2, cutsPerWorkgroup: 1, leastWorkgroups: 256 }) },
  { vendor: /^google$/, architecture: /^swiftshader$/, values: values(64, { loadsAhead: 4, cutsPerWorkgroup: 4, leastWorkgroups: 16 }) },
];
const fallback = values(64, { loadsAhead: 4, cutsPerWorkgroup: 1, leastWorkgroups: 2048 });

interface AdapterNames {
  readonly vendor: string;
  readonly architecture: string;
}

function checkOne<T extends number>(value: unknown, allowed: readonly T[], name: string): T {
  if (!allowed.includes(value as T)) throw new RangeError(`"${name}" expected ${allowed.join(', ').replace(/, (\d+)$/, ' or $1')}, got ${describe(value)}`);
  return value as T;
}

function checkRecord(value: unknown, name: string): Record<string, unknown> {
  if (typeof value !== 'object' || value === null) throw new TypeError(`"${name}" expected an object as \`fp8-kv tune\` writes it, got ${describe(value)}`);
  return value as Record<string, unknown>;
}

/**
 * A tuning as it came from JSON.
 * @throws TypeError or RangeError naming what does not fit
 */
export function checkTuning(tuning: unknown): Tuning {
  const { vendor, architecture, subgroups, decode, prefill } = checkRecord(tuning, 'tuning');
  for (const [name, value] of [['vendor', vendor], ['architecture', architecture]]) {
    if (typeof value !== 'string') throw new TypeError(`"tuning.${name as string}" expected a string, got ${describe(value)}`);
  }
  if (typeof subgroups !== 'boolean') throw new TypeError(`"tuning.subgroups" expected true or false, got ${describe(subgroups)}`);
  const [decoding, prefilling] = [checkRecord(decode, 'tuning.decode'), checkRecord(prefill, 'tuning.prefill')];
  return {
    vendor: vendor as string,
    architecture: architecture as string,
    subgroups,
    decode: {
      loadsAhead: checkOne(decoding.loadsAhead, choices.loadsAhead, 'tuning.decode.loadsAhead'),
      cutsPerWorkgroup: checkOne(decoding.cutsPerWorkgroup, choices.cutsPerWorkgroup, 'tuning.decode.cutsPerWorkgroup'),
      leastWorkgroups: checkInteger(decoding.leastWorkgroups as number, 'tuning.decode.leastWorkgroups', 1),
    },
    prefill: { rowsPerWorkgroup: checkOne(prefilling.rowsPerWorkgroup, choices.rowsPerWorkgroup, 'tuning.prefill.rowsPerWorkgroup') },
  };
}

/** What an adapter gets where nobody has tuned it. */
export function defaultTuning({ vendor, architecture }: AdapterNames): Tuning {
  const row = defaults.find((each) => each.vendor.test(vendor) && (each.architecture?.test(architecture) ?? true));
  return { vendor, architecture, ...(row?.values ?? fallback) };
}

/**
 * The first of the caller's tunings that is for this adapter, else the defaults.
 * @param given one, or one for each adapter that is known
 * @throws TypeError or RangeError naming what does not fit, whichever adapter it is for
 */
export function tuningFor({ vendor, architecture }: AdapterNames, given: Tuning | readonly Tuning[] = []): Tuning {
  const checked = (Array.isArray(given) ? given : [given]).map(checkTuning);
  return checked.find((each) => each.vendor === vendor && each.architecture === architecture) ?? defaultTuning({ vendor, architecture });
}
