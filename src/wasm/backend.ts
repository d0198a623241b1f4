import { planAppend, planRequantize } from '../append.js';
import type { AppendCall, AppendStatus, AttendCall, AttendResult, Backend, OutDtype, Pages, RequantizeCall } from '../backend.js';
import type { PageLayout } from '../layout.js';
import { checkObject } from '../options.js';
import { Appender } from './append.js';
import { AttendMemory } from './attend.js';
import type { SimdBuild } from './features.js';
import { instantiateKernels } from './kernels.js';
import { WasmMemory } from './memory.js';
import { WasmPages } from './pages.js';

/** The CPU path: everything at once, synchronously, in WebAssembly SIMD. */
export class WasmBackend implements Backend {
  readonly kind = 'wasm';
  readonly synchronous = true;
  /** Threads that compute. */
  readonly threads = 1;
  /** The build of the kernels that is used. */
  readonly simd: SimdBuild;
  readonly #memory = new WasmMemory();
  readonly #appender: Appender;
  readonly #attention: AttendMemory;

  /** @internal use `wasmBackend` */
  constructor(simd: SimdBuild) {
    this.simd = simd;
    const kernels = instantiateKernels(this.#memory, simd);
    this.#appender = new Appender(this.#memory, kernels);
    this.#attention = new AttendMemory(this.#memory, kernels, 1);
  }

  createPages(layout: PageLayout, count: number): WasmPages {
    return new WasmPages(this.#memory, layout, count);
  }

  append(call: AppendCall): AppendStatus {
    checkObject(call, 'call');
    const pages = this.#own(call.pages);
    const plan = planAppend(call, pages.marks);
    this.#appender.prepare(pages, call.key, call.value, plan)();
    return plan.status;
  }

  requantize(call: RequantizeCall): AppendStatus {
    checkObject(call, 'call');
    const [pages, from] = [this.#own(call.pages), this.#own(call.from, 'from')];
    const plan = planRequantize(call, pages.marks);
    this.#appender.prepareRequantize(pages, from, plan)();
    return plan.status;
  }

  /** The pages as ours, or an error. */
  #own(pages: Pages, argument = 'pages'): WasmPages {
    if (pages instanceof WasmPages && pages.memory === this.#memory && pages.address > 0) return pages;
    throw new TypeError(`"${argument}" expected pages that this backend created`);
  }

  attend<D extends OutDtype = 'f32'>(call: AttendCall<D>): AttendResult<D> {
    checkObject(call, 'call');
    const open = this.#attention.open(call, this.#own(call.pages));
    for (const part of open.parts) this.#attention.attendPart(open, part);
    return this.#attention.close(open);
  }

  dispose(): void {
    this.#memory.closed = true;
  }

  /** As {@link dispose}, for `using`. */
  [Symbol.dispose](): void {
    this.dispose();
  }
}
