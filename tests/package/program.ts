/** What a user's program does with the packed package, the same everywhere: codes, a cache, attention, a check of codes. */
import { encode, KvCache, openBackend, quantize, saveSnapshot, wasmBackend, type BackendChoice, type OpenOptions, type WasmBackendOptions } from 'fp8-kv';
import { checkCodes } from 'fp8-kv/oracle';

export interface Findings {
  /** What `openBackend` took; absent where the backend was made without it. */
  readonly choice?: BackendChoice;
  readonly kind: string;
  /** Threads that attention had. */
  readonly threads: number;
  /** A digest of FP8 codes and of quantized rows. */
  readonly codes: string;
  /** A digest of the cache's snapshot. */
  readonly cache: string;
  /** A digest of what attention gave: the same within one build of the kernels. */
  readonly outBits: string;
  /** The last row of it, [queryHeads, headDim]: elsewhere the same but for its last bits. */
  readonly out: readonly number[];
  /** The oracle's verdict on the codes. */
  readonly equal: boolean;
}

const [queryHeads, kvHeads, headDim, tokens] = [8, 4, 64, 300];

/** Values between −2 and 2 that are the same on every machine. */
const values = (length: number, seed: number): Float32Array => Float32Array.from({ length }, (_, i) => (((i + 7) * (seed + 12) * 2741) % 4001) / 1000 - 2);

/** FNV-1a over the bytes: there is no SHA-256 on pages without TLS. */
function digest(...arrays: readonly ArrayBufferView[]): string {
  let hash = 0x811c9dc5;
  for (const { buffer, byteOffset, byteLength } of arrays) for (const byte of new Uint8Array(buffer, byteOffset, byteLength)) hash = Math.imul(hash ^ byte, 0x01000193);
  return (hash >>> 0).toString(16).padStart(8, '0');
}

/**
 * @param open options of `openBackend`; or `{ wasm }`, those of `wasmBackend`
 */
export async function compute(open: OpenOptions & { readonly wasm?: WasmBackendOptions } = {}): Promise<Findings> {
  const x = values(5000, 1);
  const codes = encode(x, 'fp8');
  const rows = quantize(x.subarray(0, 4096), { rowLength: 64 });
  const { equal } = checkCodes({ input: x, shape: [5000], codes });

  let choice: BackendChoice | undefined;
  const backend = open.wasm ? wasmBackend(open.wasm) : await openBackend({ ...open, onChoice: (chosen) => (choice = chosen) });
  const cache = new KvCache(backend, { layers: 1, queryHeads, kvHeads, headDim, capacity: 512 });
  const sequence = cache.createSequence();
  const step = cache.begin([{ sequence, tokens }]);
  await step.append(0, values(tokens * kvHeads * headDim, 2), values(tokens * kvHeads * headDim, 3));
  const { out } = await step.attend(0, values(tokens * queryHeads * headDim, 4));
  step.commit();
  const snapshot: Uint8Array[] = [];
  for await (const chunk of saveSnapshot(cache)) snapshot.push(chunk);
  cache.dispose();
  backend.dispose();
  return {
    choice,
    kind: backend.kind,
    threads: 'threads' in backend ? (backend.threads as number) : 1,
    codes: digest(codes, rows.codes, rows.scales),
    cache: digest(...snapshot),
    outBits: digest(out),
    out: [...out.subarray(-queryHeads * headDim)],
    equal,
  };
}
