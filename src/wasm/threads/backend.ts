import { ownPlan, planAppend, planRequantize } from '../../append.js';
import type { AppendCall, AppendStatus, AttendCall, AttendResult, Backend, OutDtype, Pages, RequantizeCall } from '../../backend.js';
import type { PageLayout } from '../../layout.js';
import { checkObject } from '../../options.js';
import { Appender } from '../append.js';
import { AttendMemory, PARAMS_STRIDE, type OpenCall } from '../attend.js';
import type { SimdBuild } from '../features.js';
import { compileKernels, instantiateKernels, type Kernels } from '../kernels.js';
import { WasmMemory } from '../memory.js';
import { WasmPages, type PageBytes } from '../pages.js';
import { ThreadedPages } from './pages.js';
import { Pool } from './pool.js';
import { Queue } from '../../queue.js';

/**
 * Multiplications that are not worth waking others for: they take a tenth of a millisecond, and two threads need 0.06 ms
 * and more to be faster than one (measured on 2 cores of an AMD EPYC, Node 20).
 */
const SMALL = 2 ** 20;

/**
 * The CPU path on several threads: attention is computed by workers, and by the calling thread, in parts that do not
 * change its bits. On a page's main thread, which may not wait, workers do it alone.
 *
 * Operations take effect in the order of their calls. `append`, `requantize` and `copyPages` return at once also while attention
 * is on its way, and are done with what they were given. q, tables and results of `attend` belong to the call until its promise
 * settles.
 */
export class ThreadedBackend implements Backend {
  readonly kind = 'wasm';
  readonly synchronous = false;
  /** Threads that compute. */
  readonly threads: number;
  /** The build of the kernels that is used. */
  readonly simd: SimdBuild;
  readonly #memory = new WasmMemory(true);
  readonly #kernels: Kernels;
  readonly #appender: Appender;
  readonly #attention: AttendMemory;
  readonly #queue = new Queue();
  readonly #leastCost: number;
  /** From the first call on that is large enough. */
  #pool: Pool | undefined;

  /** @internal use `wasmBackend` */
  constructor(simd: SimdBuild, threads: number, leastCost = SMALL) {
    this.simd = simd;
    this.threads = threads;
    this.#leastCost = leastCost;
    this.#kernels = instantiateKernels(this.#memory, simd);
    this.#appender = new Appender(this.#memory, this.#kernels);
    this.#attention = new AttendMemory(this.#memory, this.#kernels, threads);
  }

  createPages(layout: PageLayout, count: number): ThreadedPages {
    return new ThreadedPages(new WasmPages(this.#memory, layout, count), this.#queue);
  }

  append(call: AppendCall): AppendStatus {
    checkObject(call, 'call');
    const pages = this.#own(call.pages);
    const plan = planAppend(call, pages.marks);
    const { busy } = this.#queue;
    const [key, value] = busy ? [call.key.slice(), call.value.slice()] : [call.key, call.value];
    const own = busy ? ownPlan(plan) : plan;
    this.#queue.later(this.#appender.prepare(this.#bytes(pages), key, value, own));
    return plan.status;
  }

  requantize(call: RequantizeCall): AppendStatus {
    checkObject(call, 'call');
    const [pages, from] = [this.#own(call.pages), this.#own(call.from, 'from')];
    const plan = planRequantize(call, pages.marks);
    this.#queue.later(this.#appender.prepareRequantize(this.#bytes(pages), this.#bytes(from), this.#queue.busy ? ownPlan(plan) : plan));
    return plan.status;
  }

  /** @internal Looks at pages when all calls before have ended. What it throws is its own affair. */
  inTurn(pages: WasmPages, look: (pages: WasmPages) => void): void {
    this.#queue.later(() => look(pages));
  }

  /** The pages as ours, or an error. */
  #own(threaded: Pages, argument = 'pages'): WasmPages {
    if (threaded instanceof ThreadedPages) {
      const { pages } = threaded;
      if (pages.memory === this.#memory && pages.address > 0) return pages;
    }
    throw new TypeError(`"${argument}" expected pages that this backend created`);
  }

  /** Where the pages are, also once they were disposed of: the memory is given back after all calls that came before. */
  #bytes({ layout, address }: WasmPages): PageBytes {
    return { layout, address };
  }

  /**
   * As the synchronous one; errors come through the promise.
   * @throws WorkerLostError when a worker ended on the way: `out` and `lse` may be there in part, pages are as they were
   */
  async attend<D extends OutDtype = 'f32'>(call: AttendCall<D>): Promise<AttendResult<D>> {
    checkObject(call, 'call');
    const pages = this.#bytes(this.#own(call.pages));
    return this.#queue.run(() => this.#attend(call, pages));
  }

  #attend<D extends OutDtype>(call: AttendCall<D>, pages: PageBytes): AttendResult<D> | Promise<AttendResult<D>> {
    const open = this.#attention.open(call, pages, this.#leastCost);
    if (open.parts.some(({ units }) => units)) return this.#attendTogether(open);
    for (const part of open.parts) this.#attention.attendPart(open, part);
    return this.#attention.close(open);
  }

  async #attendTogether<D extends OutDtype>(open: OpenCall<D>): Promise<AttendResult<D>> {
    for (const part of open.parts) {
      if (!part.units) {
        this.#attention.attendPart(open, part);
        continue;
      }
      const { params, collect } = this.#attention.layOut(open, part);
      await this.#started().run(part.units, params, PARAMS_STRIDE);
      collect();
    }
    return this.#attention.close(open);
  }

  #started(): Pool {
    this.#pool ??= new Pool(this.#kernels, compileKernels(this.simd, true), this.#memory.memory, this.threads, () => {
      this.#pool = undefined;
      // A worker that is being ended may still write there.
      this.#attention.abandon();
    });
    return this.#pool;
  }

  /** Calls that came before are finished, then the workers end. */
  dispose(): void {
    if (this.#memory.closed) return;
    this.#memory.closed = true;
    this.#queue.later(() => this.#pool?.end());
  }

  /** As {@link dispose}, for `using`. */
  [Symbol.dispose](): void {
    this.dispose();
  }
}
