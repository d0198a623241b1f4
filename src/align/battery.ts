/** Calls of every kind on two backends: whether a machine's GPU computes what the CPU does. */
import type { Alignment } from '../align.js';
import type { Backend } from '../backend.js';
import { inOneLine } from '../errors.js';
import { checkBackend } from '../options.js';
import { appendCases, attendCases, usualCases, type Case } from './cases.js';

/** One case of the battery, and how the backends compare on it. */
export interface AlignedCase {
  /** What it is about. */
  readonly name: string;
  /** How the two backends compare on it. */
  readonly alignment: Alignment;
}

/** How two backends compare on all calls of the battery. */
export interface BatteryResult {
  /** Whether all cases agree. */
  readonly ok: boolean;
  /** Each case, in order. */
  readonly cases: readonly AlignedCase[];
}

/** How strictly the battery looks, and who is told of each case. */
export interface BatteryOptions {
  /** How far attention may be off. Default 1e-4; 5e-3 is what kernels keep that multiply in f16. */
  readonly bound?: number;
  /** Called after each case. */
  readonly report?: (result: AlignedCase) => void;
}

async function runCase({ run }: Case, reference: Backend, other: Backend, bound: number | undefined): Promise<Alignment> {
  try {
    return await run(reference, other, bound);
  } catch (error) {
    return { ok: false, summary: inOneLine(error) };
  }
}

/**
 * Runs some 60 small calls on both backends: appends must give the same bytes, attention must agree within its bound. The
 * calls are the same each time. A case that a backend throws in has failed, with the error as its summary.
 * @param reference what is right, as `wasmBackend()` is
 */
export async function alignBattery(reference: Backend, other: Backend, { bound, report }: BatteryOptions = {}): Promise<BatteryResult> {
  checkBackend(reference, 'reference');
  checkBackend(other, 'other');
  const cases: AlignedCase[] = [];
  for (const each of [...appendCases(), ...attendCases()]) {
    const result = { name: each.name, alignment: await runCase(each, reference, other, bound) };
    cases.push(result);
    report?.(result);
  }
  return { ok: cases.every(({ alignment }) => alignment.ok), cases };
}

/** The least that a backend must get right to be of use: what it gets wrong, or undefined. */
export async function misalignment(reference: Backend, other: Backend): Promise<string | undefined> {
  for (const each of usualCases()) {
    const { ok, summary } = await each.run(reference, other);
    if (!ok) return `${each.name}: ${summary}`;
  }
  return undefined;
}
