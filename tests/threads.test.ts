/** Attention on several threads: the bits of one thread, in the order of the calls, with workers that come, go and die. */
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import type { Worker } from 'node:worker_threads';
import { equal, is, match, ok, throws } from 'uvu/assert';
import { KvCache, openBackend, pageLayout, wasmBackend, WorkerLostError } from '../src/index.js';
import type { AttendCall, AttendResult, AttentionOptions, Backend, NhdTensors, PageLayout } from '../src/index.js';
import { UNIT_WORDS } from '../src/layout.js';
import { ThreadedBackend } from '../src/wasm/threads/backend.js';
import { Pool } from '../src/wasm/threads/pool.js';
import { sizeWatcher, words } from '../src/wasm/threads/worker.js';
import { assertSameBits } from './bits.js';
import { builds } from './builds.js';
import { random } from './random.js';
import { suite } from './suite.js';

const test = suite('threads');

/** Every call is divided, however small. */
const threaded = (threads: number, simd = builds[0]): ThreadedBackend => new ThreadedBackend(simd, threads, 0);

/** Runs with a main thread that may not wait, as a page's: workers compute alone. */
async function asOnAPage<T>(body: () => Promise<T>): Promise<T> {
  const { wait } = Atomics;
  Atomics.wait = () => {
    throw new TypeError('Atomics.wait cannot be called in this context');
  };
  try {
    return await body();
  } finally {
    Atomics.wait = wait;
  }
}

/** The workers that were started since the last look; Node tells of them in a later turn of the event loop. */
async function watchWorkers(): Promise<{ started(): Promise<Worker[]>; stop(): void }> {
  // What was started before is told of now.
  await new Promise(setImmediate);
  const workers: Worker[] = [];
  const add = (worker: Worker): void => void workers.push(worker);
  process.on('worker', add);
  return {
    async started() {
      await new Promise(setImmediate);
      return workers.splice(0);
    },
    stop: () => void process.off('worker', add),
  };
}

interface Shape {
  readonly kvHeads: number;
  readonly queryHeads: number;
  readonly headDim: number;
  /** Keys and rows of each sequence. */
  readonly kvLens: readonly number[];
  readonly qLens: readonly number[];
  readonly attention?: AttentionOptions;
}

const BLOCK = 16;

interface Inputs {
  readonly layout: PageLayout;
  readonly stored: NhdTensors;
  readonly call: Omit<AttendCall, 'pages'>;
}

/** Random codes, and a call on them. */
function inputsOf({ kvHeads, queryHeads, headDim, kvLens, qLens }: Shape): Inputs {
  const numbers = random(5);
  // Sequences share pages, in another order each.
  const maxBlocks = Math.ceil(Math.max(...kvLens) / BLOCK);
  const rows = maxBlocks * BLOCK * kvHeads;
  const codes = (): Uint8Array => Uint8Array.from({ length: rows * headDim }, () => numbers.bits() % 0x70);
  const scales = (): Float32Array => Float32Array.from({ length: rows }, () => 0.001 + numbers.uniform() / 100);
  const blockTable = Int32Array.from({ length: kvLens.length * maxBlocks }, (_, i) => (i * 7 + Math.floor(i / maxBlocks)) % maxBlocks);
  const cuSeqlensQ = Int32Array.of(0, ...qLens.map((_, s) => qLens.slice(0, s + 1).reduce((a, b) => a + b)));
  const q = Float32Array.from({ length: cuSeqlensQ.at(-1)! * queryHeads * headDim }, () => numbers.uniform() - 0.5);
  return {
    layout: pageLayout({ kvHeads, headDim, blockSize: BLOCK }),
    stored: { keyCache: codes(), valueCache: codes(), keyScale: scales(), valueScale: scales() },
    call: { q, blockTable, cuSeqlensQ, seqUsedK: Int32Array.from(kvLens) },
  };
}

/** What `make` gives for a key, made once. */
function remembered<K extends object, V>(make: (key: K) => V): (key: K) => V {
  const made = new WeakMap<K, { readonly value: V }>();
  return (key) => {
    const known = made.get(key) ?? { value: make(key) };
    made.set(key, known);
    return known.value;
  };
}

const knownInputs = remembered(inputsOf);

/** A call on pages of their own; the same for the same shape. */
async function callOn(backend: Backend, shape: Shape): Promise<AttendCall> {
  const { layout, stored, call } = knownInputs(shape);
  const pages = backend.createPages(layout, stored.keyCache.length / (BLOCK * layout.kvHeads * layout.headDim));
  await pages.import(stored);
  return { ...shape.attention, ...call, pages };
}

function assertSame(actual: AttendResult, expected: AttendResult, what: string): void {
  assertSameBits(actual.out, expected.out, `${what}, out`);
  assertSameBits(actual.lse, expected.lse, `${what}, lse`);
}

/** What one thread gives, for each build. */
const alone = builds.map((simd) => remembered(async (shape: Shape) => {
  using backend = wasmBackend({ simd });
  return backend.attend(await callOn(backend, shape));
}));
const expectedOf = (shape: Shape, simd = builds[0]): Promise<AttendResult> => alone[builds.indexOf(simd)](shape);

const sinks = (queryHeads: number): Float32Array => random(9).normals(queryHeads);
const shapes: readonly (Shape & { readonly what: string })[] = [
  { what: 'one head over six cuts', kvHeads: 1, queryHeads: 4, headDim: 64, kvLens: [10_300], qLens: [1] },
  { what: '8 heads over three cuts, with sinks', kvHeads: 8, queryHeads: 16, headDim: 32, kvLens: [5000], qLens: [1], attention: { sinks: sinks(16) } },
  { what: 'a long chunk, a window over cuts', kvHeads: 2, queryHeads: 4, headDim: 16, kvLens: [6200], qLens: [150], attention: { windowLeft: 2500 } },
  { what: 'a short window at the end of many keys', kvHeads: 1, queryHeads: 71, headDim: 8, kvLens: [9000], qLens: [2], attention: { windowLeft: 3, sinks: sinks(71) } },
  { what: 'not causal, to both sides', kvHeads: 1, queryHeads: 1, headDim: 8, kvLens: [4500], qLens: [2000], attention: { causal: false, windowLeft: 700, windowRight: 2100 } },
  { what: 'a prefill', kvHeads: 2, queryHeads: 6, headDim: 40, kvLens: [333], qLens: [333], attention: { softcap: 8 } },
  { what: 'a ragged batch', kvHeads: 2, queryHeads: 4, headDim: 24, kvLens: [0, 9000, 1, 70, 2048, 2049, 3], qLens: [2, 1, 1, 70, 3, 1, 0] },
  { what: 'more rows than keys', kvHeads: 1, queryHeads: 2, headDim: 8, kvLens: [3, 5000], qLens: [9, 1] },
];

for (const simd of builds) {
  test(`1, 2 and 3 threads give the same bits, ${simd}`, async () => {
    const backends = [threaded(2, simd), threaded(3, simd)];
    for (const shape of shapes) {
      const expected = await expectedOf(shape, simd);
      for (const backend of backends) {
        const call = await callOn(backend, shape);
        // More than once: who computes what differs from call to call.
        for (let i = 0; i < 5; i++) assertSame(await backend.attend(call), expected, `${shape.what}, ${backend.threads} threads`);
        call.pages.dispose();
      }
    }
    for (const backend of backends) backend.dispose();
  });

  test(`workers alone give the same bits, ${simd}`, () => asOnAPage(async () => {
    for (const threads of [2, 3]) {
      const backend = threaded(threads, simd);
      for (const shape of shapes) {
        assertSame(await backend.attend(await callOn(backend, shape)), await expectedOf(shape, simd), `${shape.what}, ${threads} workers`);
      }
      backend.dispose();
    }
  }));
}

const SMALL: Shape = { kvHeads: 1, queryHeads: 2, headDim: 16, kvLens: [40], qLens: [3] };
/** A tenth of a second of work. */
const LONG: Shape = { kvHeads: 1, queryHeads: 16, headDim: 128, kvLens: [800], qLens: [800] };

test('work that goes through in parts, with out where q is', async () => {
  const shape: Shape = { kvHeads: 1, queryHeads: 64, headDim: 256, kvLens: [300], qLens: [300] };
  const expected = await expectedOf(shape);
  const backend = threaded(2);
  const call = await callOn(backend, shape);
  assertSame(await backend.attend(call), expected, 'apart');
  const out = call.q as Float32Array;
  is((await backend.attend({ ...call, out })).out, out);
  assertSameBits(out, expected.out, 'in place');
  backend.dispose();
});

test('workers start with the first call that is worth it, and end with dispose', async () => {
  const watch = await watchWorkers();
  const backend = wasmBackend({ threads: 3 });
  is(backend.threads, 3);
  is(backend.synchronous, false);
  await backend.attend(await callOn(backend, SMALL));
  equal(await watch.started(), []);
  await backend.attend(await callOn(backend, LONG));
  await backend.attend(await callOn(backend, LONG));
  const workers = await watch.started();
  is(workers.length, 2);
  const exits = workers.map((worker) => once(worker, 'exit'));
  backend.dispose();
  backend.dispose();
  await Promise.all(exits);
  throws(() => backend.createPages(pageLayout({ kvHeads: 1, headDim: 8, blockSize: 1 }), 1), /"backend" expected to be in use/);
  watch.stop();
});

/** Runs a program over the built package. */
function run(code: string): string {
  const index = JSON.stringify(new URL('../dist/index.js', import.meta.url).href);
  const program = `
    import { pageLayout, wasmBackend } from ${index};
    const backend = wasmBackend({ threads: 2 });
    const pages = backend.createPages(pageLayout({ kvHeads: 8, headDim: 128, blockSize: 16 }), 256);
    const blockTable = Int32Array.from({ length: 256 }, (_, i) => i);
    const call = { pages, q: new Float32Array(32 * 128), blockTable, cuSeqlensQ: Int32Array.of(0, 1), seqUsedK: Int32Array.of(4096) };
    ${code}`;
  return execFileSync(process.execPath, ['--input-type=module', '-e', program], { encoding: 'utf8', timeout: 20_000, cwd: fileURLToPath(new URL('..', import.meta.url)) });
}

test('idle workers do not keep the process, and a call that is waited for does', () => {
  const program = 'for (let i = 0; i < 3; i++) await backend.attend(call); console.log("done");';
  is(run(program), 'done\n');
  is(run(`Atomics.wait = () => { throw new TypeError(); }; ${program}`), 'done\n', 'workers alone');
  is(run('console.log("never used");'), 'never used\n');
});

async function lost(promise: Promise<unknown>): Promise<void> {
  const error: unknown = await promise.then(() => undefined, (reason: unknown) => reason);
  ok(error instanceof WorkerLostError, `expected a WorkerLostError, got ${String(error)}`);
  is(error.name, 'WorkerLostError');
  match(error.message, /^a worker ended while a call was computed \(exit code [01]\)/);
  ok(error.cause instanceof Error);
}

test('a worker that dies before it has begun, or at work, fails the call on its way; the next starts others', () => asOnAPage(async () => {
  const expected = await expectedOf(LONG);
  const watch = await watchWorkers();
  const backend = threaded(2);
  const call = await callOn(backend, LONG);
  let workers: Worker[] = [];
  for (const when of ['before it has begun', 'at work']) {
    if (when === 'at work') assertSame(await backend.attend(call), expected, 'nobody dies');
    const calls = [backend.attend(call), backend.attend(call)];
    workers.push(...(await watch.started()));
    is(workers.length, 2);
    const gone = Promise.all(workers.map((worker) => once(worker, 'exit')));
    void workers[1].terminate();
    await lost(calls[0]);
    await gone;
    assertSame(await calls[1], expected, `the call behind one whose worker died ${when}`);
    workers = await watch.started();
    is(workers.length, 2);
  }
  backend.dispose();
  watch.stop();
}));

test('a worker that dies idle fails nothing', async () => {
  const expected = await expectedOf(LONG);
  const watch = await watchWorkers();
  const backend = threaded(3);
  const call = await callOn(backend, LONG);
  for (let i = 0; i < 2; i++) {
    assertSame(await backend.attend(call), expected, `after ${i} deaths`);
    const workers = await watch.started();
    is(workers.length, 2);
    const gone = Promise.all(workers.map((worker) => once(worker, 'exit')));
    void workers[0].terminate();
    await gone;
  }
  backend.dispose();
  watch.stop();
});

test('where the calling thread computes too, a death at any time fails one call or none', async () => {
  const expected = await expectedOf(LONG);
  const watch = await watchWorkers();
  const backend = threaded(2);
  const call = await callOn(backend, LONG);
  for (let i = 0; i < 8; i++) {
    const calls = [backend.attend(call), backend.attend(call)];
    const [worker] = await watch.started();
    if (i % 2 === 1) await new Promise((resolve) => setTimeout(resolve, 5 * i));
    void worker?.terminate();
    const results = await Promise.allSettled(calls);
    for (const result of results) {
      if (result.status === 'fulfilled') assertSame(result.value, expected, `round ${i}`);
      else await lost(Promise.reject(result.reason as Error));
    }
    ok(results.filter(({ status }) => status === 'rejected').length <= 1);
    assertSame(await backend.attend(call), expected, `after round ${i}`);
  }
  backend.dispose();
  watch.stop();
});

test('operations take effect in the order of the calls, also while attention is on its way', () => asOnAPage(async () => {
  const layout = pageLayout({ kvHeads: 1, headDim: 64, blockSize: BLOCK });
  const count = 40;
  /** Everything at once, nothing waited for until the end. */
  async function script(backend: Backend): Promise<(AttendResult | NhdTensors | object)[]> {
    const numbers = random(21);
    const pages = backend.createPages(layout, count);
    const results: unknown[] = [];
    const blockTable = Int32Array.from({ length: count }, (_, i) => count - 1 - i);
    const attend = (rows: number, keys: number): void => {
      const q = numbers.normals(rows * 8 * layout.headDim);
      results.push(backend.attend({ pages, q, blockTable, cuSeqlensQ: Int32Array.of(0, rows), seqUsedK: Int32Array.of(keys) }));
    };
    const append = (first: number, tokens: number): void => {
      const [key, value] = [numbers.normals(tokens * layout.headDim), numbers.normals(tokens * layout.headDim)];
      const slotMapping = Int32Array.from({ length: tokens }, (_, i) => first + i);
      results.push(backend.append({ pages, key, value, slotMapping }));
      // append is done with what it was given.
      for (const array of [key, value, slotMapping]) array.fill(1e6);
    };
    append(0, count * BLOCK);
    attend(300, 600);
    append(100, 300);
    attend(200, 500);
    const from = [1, 2, 3];
    pages.copyPages(from, [20, 21, 1]);
    from.fill(9);
    attend(400, 640);
    results.push(pages.export(1, 30));
    append(50, 1);
    results.push(pages.export(3, 1));
    const exported = await pages.export();
    attend(100, 400);
    results.push(pages.import({ ...exported, keyCache: exported.valueCache, keyScale: exported.valueScale }));
    attend(1, 640);
    results.push(pages.export());
    // Freed memory is used again, but not before.
    attend(300, 640);
    pages.dispose();
    const next = backend.createPages(layout, count);
    const ones = new Float32Array(64).fill(1);
    results.push(backend.append({ pages: next, key: ones, value: ones, slotMapping: Int32Array.of(5) }), next.export());
    return Promise.all(results) as Promise<object[]>;
  }
  const one = await script(wasmBackend({ simd: builds[0] }));
  const backend = threaded(2);
  for (const [i, result] of (await script(backend)).entries()) {
    for (const [name, value] of Object.entries(one[i] ?? {})) {
      const actual = (result as Record<string, unknown>)[name];
      if (typeof value === 'number') is(actual, value);
      else assertSameBits(actual as Float32Array, value as Float32Array, `result ${i}, ${name}`);
    }
  }
  backend.dispose();
}));

test('given scales of an append that has to wait are those of its call', () => asOnAPage(async () => {
  const side = { granularity: 'channel' } as const;
  async function written(backend: Backend): Promise<NhdTensors> {
    const pages = backend.createPages(pageLayout({ kvHeads: 2, headDim: 64, blockSize: BLOCK, k: side, v: side }), 1);
    const before = backend.attend(await callOn(backend, LONG));
    const x = random(41).normals(2 * 128);
    const scale = Float32Array.from({ length: 128 }, (_, i) => 0.01 * (i + 1));
    void backend.append({ pages, key: x, value: x, slotMapping: Int32Array.of(3, 5), kScale: scale, vScale: scale });
    scale.fill(1e6);
    await before;
    return pages.export();
  }
  const backend = threaded(2);
  const [actual, expected] = [await written(backend), await written(wasmBackend({ simd: builds[0] }))];
  for (const name of ['keyCache', 'valueCache'] as const) assertSameBits(actual[name], expected[name], name);
  backend.dispose();
}));

test('a call that does not fit is refused by name and stops no other', async () => {
  const backend = threaded(2);
  const call = await callOn(backend, SMALL);
  const expected = await expectedOf(SMALL);
  const calls = [backend.attend(call), backend.attend({ ...call, windowLeft: -2 }), backend.attend(call)];
  const [first, refused, third] = await Promise.allSettled(calls);
  ok(refused.status === 'rejected' && /"windowLeft"/.test(String(refused.reason)));
  for (const result of [first, third]) assertSame((result as PromiseFulfilledResult<AttendResult>).value, expected, 'beside');
  throws(() => void backend.append({ pages: call.pages, key: call.q, value: call.q, slotMapping: Int32Array.of(1, 1) }), /"key" expected/);
  const foreign = await callOn(wasmBackend(), SMALL);
  await backend.attend(foreign).then(() => ok(false), (error: Error) => match(error.message, /"pages" expected pages that this backend created/));
  backend.dispose();
});

test('dispose lets calls on their way end', async () => {
  const backend = threaded(2);
  const calls = [backend.attend(await callOn(backend, LONG)), backend.attend(await callOn(backend, SMALL))];
  const late = await callOn(backend, SMALL);
  calls.push(backend.attend(late));
  backend.dispose();
  const expected = [await expectedOf(LONG), await expectedOf(SMALL), await expectedOf(SMALL)];
  for (const [i, result] of (await Promise.all(calls)).entries()) assertSame(result, expected[i], `call ${i}`);
  await backend.attend(late).then(() => ok(false), (error: Error) => match(error.message, /disposed of/));
});

test('workers see memory that has grown since they began', () => asOnAPage(async () => {
  const backend = threaded(2);
  const expected = await expectedOf(LONG);
  assertSame(await backend.attend(await callOn(backend, LONG)), expected, 'before');
  for (let i = 0; i < 3; i++) {
    backend.createPages(pageLayout({ kvHeads: 8, headDim: 128, blockSize: 16 }), 4000);
    assertSame(await backend.attend(await callOn(backend, LONG)), expected, `grown ${i + 1} times`);
  }
  backend.dispose();
}));

test('a worker that was not told of growth as it started asks for the size that a call needs, once', () => {
  // V8 forgets to tell in about one of 300 starts while memory grows: too rarely to wait for it here.
  const control = new Int32Array(new SharedArrayBuffer(4 * words.splits));
  const asked: number[] = [];
  const memory = { grow: (pages: number) => asked.push(pages) } as unknown as WebAssembly.Memory;
  const begin = sizeWatcher(memory, control);
  for (const pages of [7, 7, 9, 9, 9]) {
    Atomics.store(control, words.pages, pages);
    begin();
  }
  equal(asked, [0, 0]);
});

test('a call says how large memory is before anyone may take its units', async () => {
  const memory = new WebAssembly.Memory({ initial: 3, maximum: 5, shared: true });
  const seen: number[] = [];
  let control: Int32Array<SharedArrayBuffer> | undefined;
  const load = Atomics.load;
  Atomics.load = ((array: Int32Array<SharedArrayBuffer>, at: number) => (control = array, load(array, at))) as typeof Atomics.load;
  try {
    const kernels = { attendUnit: () => (seen.push(load(control!, words.pages)), -1), mergeSplit: () => {} };
    const pool = new Pool(kernels, undefined as never, memory, 1, () => {});
    const one = { units: new Int32Array(UNIT_WORDS), splits: new Int32Array(0), partialBytes: 0, cost: 1 };
    await pool.run(one, 0, 0);
    memory.grow(2);
    await pool.run(one, 0, 0);
    pool.end();
  } finally {
    Atomics.load = load;
  }
  equal(seen, [3, 5]);
});

test('what users get is theirs: nothing is a view of shared memory', async () => {
  const backend = threaded(2);
  const call = await callOn(backend, SMALL);
  const { out, lse } = await backend.attend(call);
  for (const array of [out, lse, ...Object.values(await call.pages.export())]) ok((array as Uint8Array).buffer instanceof ArrayBuffer);
  backend.dispose();
});

test('a KvCache over threads', async () => {
  const options = { layers: 2, queryHeads: 8, kvHeads: 2, headDim: 64, capacity: 700 };
  async function generate(backend: Backend): Promise<AttendResult[]> {
    const numbers = random(31);
    const cache = new KvCache(backend, options);
    const results: AttendResult[] = [];
    let sequence = cache.createSequence();
    for (const tokens of [500, 1, 1, 30, 1]) {
      const step = cache.begin([{ sequence, tokens }]);
      for (let layer = 0; layer < options.layers; layer++) {
        step.append(layer, numbers.normals(tokens * 128), numbers.normals(tokens * 128));
        results.push(await step.attend(layer, numbers.normals(tokens * 512)));
      }
      step.commit();
      const twin = sequence.fork();
      sequence.free();
      sequence = twin;
    }
    cache.dispose();
    return results;
  }
  const one = await generate(wasmBackend({ simd: builds[0] }));
  for (const backend of [threaded(2), threaded(3)]) {
    for (const [i, result] of (await generate(backend)).entries()) assertSame(result, one[i], `attention ${i}`);
    const step = new KvCache(backend, { ...options, layers: 1 }).begin([]);
    throws(() => step.attendSync(0, new Float32Array(0)), /"attendSync" expected a backend that answers at once, got one \(wasm\) that gives promises: use attend/);
    backend.dispose();
  }
});

test('threads are refused by name where there can be none, and openBackend then takes one', async () => {
  for (const threads of [0, 1.5, 65, '2' as unknown as number]) {
    throws(() => wasmBackend({ threads }), /"threads" expected an integer from 1 to 64/);
    await openBackend({ threads }).then(() => ok(false), (error: Error) => match(error.message, /"threads" expected an integer from 1 to 64/));
  }
  is((await openBackend({ threads: 2, prefer: 'wasm' })).synchronous, false);
  const shared = globalThis.SharedArrayBuffer;
  try {
    globalThis.SharedArrayBuffer = undefined as unknown as typeof shared;
    throws(() => wasmBackend({ threads: 2 }), /"threads" expected 1, because there is no SharedArrayBuffer: a page must be cross-origin isolated .*; got 2/);
    is(wasmBackend({ threads: 1 }).threads, 1);
    is((await openBackend({ threads: 2, prefer: 'wasm' })).synchronous, true);
  } finally {
    globalThis.SharedArrayBuffer = shared;
  }
});
