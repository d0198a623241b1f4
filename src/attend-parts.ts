/** Attention over keys that lie in several places: each place by itself, and the states merged. */
import type { AttendCall, AttendResult, Backend, OutDtype } from './backend.js';
import { mergeStates } from './merge-states.js';

/** @throws TypeError unless the parts' results can be merged, where there are several */
export function checkPartDtypes(parts: readonly { readonly outDtype?: OutDtype }[]): void {
  const other = parts.length > 1 ? parts.find(({ outDtype = 'f32' }) => outDtype !== 'f32') : undefined;
  if (other) throw new TypeError(`"outDtype" expected f32 where keys lie in ${parts.length} places, as states are merged in f32, got ${other.outDtype}`);
}

/** The states merged one after the other, in their order. */
function mergeAll(states: readonly AttendResult[], { out, lse }: Pick<AttendCall, 'out' | 'lse'>): AttendResult {
  let merged = states[0];
  for (let i = 1; i < states.length; i++) {
    const results = i === states.length - 1 ? { out, lse } : merged;
    merged = mergeStates(merged.out, merged.lse, states[i].out, states[i].lse, results);
  }
  return merged;
}

/**
 * Attention of the same rows over the keys of all parts, which have none in common: one `attend` for each, and `mergeStates`
 * of what they give. A sink belongs into one part only.
 *
 * @param parts all of which name the same out and lse, if any; `out` may be q
 * @returns at once where the backend does
 * @throws as `attend`; TypeError for an outDtype other than f32 where there are several parts
 */
export function attendParts<D extends OutDtype = 'f32'>(backend: Backend, parts: readonly AttendCall<D>[]): AttendResult<D> | Promise<AttendResult<D>> {
  // Most calls are one, which is passed on as it is: with a spread V8 makes 4 KB of garbage of it.
  if (parts.length === 1) return backend.attend(parts[0]);
  checkPartDtypes(parts);
  const f32Parts = parts as readonly AttendCall[];
  const { out, lse } = f32Parts[0];
  // At once, the last may write where the result belongs: all others have read q by then. Else one may fail when it has.
  const last = backend.synchronous ? { out, lse } : {};
  const states = f32Parts.map((part, i) => backend.attend({ ...part, out: undefined, lse: undefined, ...(i === parts.length - 1 ? last : {}) }));
  const merged = states.some((state) => state instanceof Promise) ? Promise.all(states).then((all) => mergeAll(all, { out, lse })) : mergeAll(states as AttendResult[], { out, lse });
  return merged as AttendResult<D> | Promise<AttendResult<D>>;
}
