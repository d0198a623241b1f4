/** Attention over a prefix that all sequences share, once, and over what each has of its own. */
import { int32 } from './attention.js';
import type { AttendCall, AttendResult, Backend } from './backend.js';
import { describe } from './formats.js';
import { checkInteger } from './layout.js';
import { checkBackend, checkObject } from './options.js';
import { mergeStates } from './merge-states.js';

/** Attention of sequences that share a prefix: the prefix once, then what each has of its own. */
export interface CascadeCall extends Omit<AttendCall, 'windowLeft' | 'windowRight' | 'alibiSlopes' | 'contextLens' | 'blockTable' | 'outDtype'> {
  /** `[blocks]`: the pages of the prefix, in their order. */
  readonly sharedBlocks: Int32Array;
  /** Keys of the prefix. */
  readonly sharedLen: number;
  /** `[sequences, maxBlocks]`: each sequence's own pages, behind the prefix. */
  readonly blockTable: Int32Array;
  /** `[sequences]`: each sequence's own keys, the new ones included: at least as many as it has new tokens. */
  readonly seqUsedK: Int32Array;
}

/** What depends on how far a key is from a row differs between rows that stand in different places behind the prefix. */
const refused = ['windowLeft', 'windowRight', 'alibiSlopes', 'contextLens'] as const;

/** @throws TypeError or RangeError naming what does not fit a shared prefix */
function checkCascade(call: CascadeCall): void {
  for (const name of refused) {
    const value = (call as Partial<AttendCall>)[name];
    if (value !== undefined && value !== -1) throw new TypeError(`"${name}" expected to be absent where a prefix is shared: use attend, with the prefix in each row of the block table`);
  }
  for (const name of ['kDescale', 'vDescale'] as const) {
    const scale = call[name];
    if (scale instanceof Float32Array && scale.length > 1) throw new TypeError(`"${name}" expected one number where a prefix is shared, as that has one, got ${scale.length}`);
  }
  const { outDtype } = call as Partial<AttendCall>;
  if (outDtype !== undefined && outDtype !== 'f32') throw new TypeError(`"outDtype" expected f32 where a prefix is shared, as states are merged in f32, got ${describe(outDtype)}`);
  int32(call.blockTable, 'blockTable');
  const cuSeqlensQ = int32(call.cuSeqlensQ, 'cuSeqlensQ');
  const seqUsedK = int32(call.seqUsedK, 'seqUsedK');
  for (let s = 0; s < seqUsedK.length; s++) {
    const rows = cuSeqlensQ[s + 1] - cuSeqlensQ[s];
    if (rows > seqUsedK[s]) throw new RangeError(`"seqUsedK[${s}]" expected at least the ${rows} new tokens of the sequence, got ${seqUsedK[s]}`);
  }
}

/**
 * As `backend.attend` with the prefix before each sequence's own keys, within 1e-5 of it, but the prefix is read once for all
 * rows, and not once for each sequence: sequences that {@link Sequence.fork} made of one have its full pages in common.
 *
 * @returns out [totalQ, queryHeads, headDim] and lse [totalQ, queryHeads], as `attend` does
 * @throws TypeError or RangeError naming the argument that does not fit; windows and ALiBi are refused
 */
export async function attendCascade(backend: Backend, cascade: CascadeCall): Promise<AttendResult> {
  checkBackend(backend);
  checkObject(cascade, 'call');
  checkCascade(cascade);
  const { sharedBlocks, sharedLen, ...call } = cascade;
  const blockTable = int32(sharedBlocks, 'sharedBlocks');
  checkInteger(sharedLen, 'sharedLen', 0, blockTable.length * call.pages.layout.blockSize);
  const { out: _out, lse: _lse, ...rest } = call;
  const rows = Int32Array.of(0, call.cuSeqlensQ[call.cuSeqlensQ.length - 1]);
  // Where the prefix is, no row is before it; and a sink counts once. It goes first, since `out` may be q.
  const shared = await backend.attend({ ...rest, blockTable, cuSeqlensQ: rows, seqUsedK: Int32Array.of(sharedLen), causal: false, sinks: undefined });
  const own = await backend.attend(call);
  return mergeStates(shared.out, shared.lse, own.out, own.lse, { out: own.out, lse: own.lse });
}
