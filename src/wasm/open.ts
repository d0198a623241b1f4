import { describe } from '../formats.js';
import { checkInteger } from '../layout.js';
import { checkOptions, type OptionNames } from '../options.js';
import { reader, recorderAskedFor } from '../recorder.js';
import { WasmBackend } from './backend.js';
import { wasmFeatures, type SimdBuild } from './features.js';
import { WasmPages } from './pages.js';
import { ThreadedBackend } from './threads/backend.js';
import { ThreadedPages } from './threads/pages.js';
import { hasWorkers } from './threads/spawn.js';

/** More have not been tried. */
const MAX_THREADS = 64;

/** Which build of the kernels computes, on how many threads. */
export interface WasmBackendOptions {
  /**
   * `relaxed` fuses attention's products and sums where the engine has relaxed SIMD: faster, with other last bits.
   * Default: relaxed where there is such a thing, else `baseline`. The bytes in the cache are the same in both.
   */
  readonly simd?: SimdBuild;
  /**
   * Threads that compute attention, from 1 (default) to 64. Beyond 1, `attend` gives promises, and workers are started
   * when first needed: Node's, or a page's where it is cross-origin isolated. The bits are the same for any number.
   */
  readonly threads?: number;
}

const optionNames: OptionNames<WasmBackendOptions> = { simd: true, threads: true };

/** The options of a backend that computes on the calling thread alone. */
export interface SynchronousOptions extends WasmBackendOptions {
  readonly threads?: 1;
}

/** What keeps this place from having threads. */
function whyNoThreads(): string | undefined {
  if (!wasmFeatures().sharedMemory) {
    return 'there is no SharedArrayBuffer: a page must be cross-origin isolated (headers Cross-Origin-Opener-Policy: same-origin and Cross-Origin-Embedder-Policy: require-corp)';
  }
  return hasWorkers ? undefined : 'there are no workers';
}

/** As many threads as asked for, or 1 where there can be no more. */
export function threadsAvailable(threads = 1): number {
  checkThreads(threads);
  return whyNoThreads() === undefined ? threads : 1;
}

const checkThreads = (threads: number): number => checkInteger(threads, 'threads', 1, MAX_THREADS);

/**
 * A backend on WebAssembly SIMD, which is everywhere. Owns its memory, and its workers where there are `threads`; give
 * them back with `dispose()`.
 * @throws TypeError for a build that is not known, or that this engine cannot run, and for threads where there can be none
 */
export function wasmBackend(options?: SynchronousOptions): WasmBackend;
export function wasmBackend(options: WasmBackendOptions): WasmBackend | ThreadedBackend;
export function wasmBackend(options: WasmBackendOptions = {}): WasmBackend | ThreadedBackend {
  checkOptions(options, 'options', optionNames);
  const { relaxedSimd } = wasmFeatures();
  const { simd = relaxedSimd ? 'relaxed' : 'baseline', threads = 1 } = options;
  if (simd !== 'baseline' && simd !== 'relaxed') throw new TypeError(`"simd" expected baseline or relaxed, got ${describe(simd)}`);
  if (simd === 'relaxed' && !relaxedSimd) throw new TypeError('"simd" expected baseline on this engine, which has no relaxed SIMD, got relaxed');
  if (checkThreads(threads) === 1) return recorded(new WasmBackend(simd));
  const why = whyNoThreads();
  if (why !== undefined) throw new TypeError(`"threads" expected 1, because ${why}; got ${threads}`);
  return recordedThreads(new ThreadedBackend(simd, threads));
}

/** The backend, which writes down its calls where that is asked for: in methods of its own then, so that it costs nothing elsewhere. */
function recorded(backend: WasmBackend): WasmBackend {
  const recorder = recorderAskedFor();
  if (recorder === undefined) return backend;
  const { append, attend } = backend;
  backend.append = (call) => {
    if (call?.pages instanceof WasmPages) recorder.append(call, 'wasm')?.write(reader(call.pages));
    return append.call(backend, call);
  };
  backend.attend = ((call) => {
    if (call?.pages instanceof WasmPages) recorder.attend(call, 'wasm')?.write(reader(call.pages));
    return attend.call(backend, call);
  }) as typeof attend;
  return backend;
}

/** The same on threads, where what is in pages is read when the call has its turn. */
function recordedThreads(backend: ThreadedBackend): ThreadedBackend {
  const recorder = recorderAskedFor();
  if (recorder === undefined) return backend;
  const { append, attend } = backend;
  const name = `wasm, ${backend.threads} threads`;
  backend.append = (call) => {
    const recording = call?.pages instanceof ThreadedPages && recorder.append(call, name);
    if (recording) backend.inTurn((call.pages as ThreadedPages).pages, (pages) => recording.write(reader(pages)));
    return append.call(backend, call);
  };
  backend.attend = ((call) => {
    const recording = call?.pages instanceof ThreadedPages && recorder.attend(call, name);
    if (recording) backend.inTurn((call.pages as ThreadedPages).pages, (pages) => recording.write(reader(pages)));
    return attend.call(backend, call);
  }) as typeof attend;
  return backend;
}
