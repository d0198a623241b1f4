import fc from 'fast-check';
import { is, ok, throws } from 'uvu/assert';
import { pageLayout, wasmBackend } from '../../src/index.js';
import type { AttendResult, NhdTensors, PageLayout, SideOptions, WasmBackend, WasmPages } from '../../src/index.js';
import { Scratch, WasmMemory } from '../../src/wasm/memory.js';
import { assertSameBits } from '../bits.js';
import { poison } from '../fixture.js';
import { random } from '../random.js';
import { suite } from '../suite.js';

const test = suite('memory');
const SEED = 20250301;
const GIB = 2 ** 30;
const UNIT = 64;
const FIRST = 1024 / UNIT;
const UNITS_PER_PAGE = 65536 / UNIT;

const unitsOf = (bytes: number): number => Math.max(1, Math.ceil(bytes / UNIT));

/** The allocator said plainly: one flag per 64 bytes, the first run that is long enough is taken. */
class PlainMemory {
  readonly used: boolean[] = Array<boolean>(UNITS_PER_PAGE).fill(false).fill(true, 0, FIRST);

  allocate(bytes: number): number {
    const units = unitsOf(bytes);
    let start = 0;
    // Behind the end there is as much as anyone asks for.
    for (let at = 0; at - start < units; at++) if (this.used[at]) start = at + 1;
    while (this.used.length < start + units) this.used.push(...Array<boolean>(UNITS_PER_PAGE).fill(false));
    this.used.fill(true, start, start + units);
    return start * UNIT;
  }

  free(start: number, bytes: number): void {
    this.used.fill(false, start / UNIT, start / UNIT + unitsOf(bytes));
  }
}

type Operation = { readonly allocate: number } | { readonly free: number };
const operation: fc.Arbitrary<Operation> = fc.oneof(
  fc.record({ allocate: fc.oneof(fc.integer({ min: 0, max: 300 }), fc.integer({ min: 0, max: 90_000 })) }),
  fc.record({ free: fc.nat() }),
);

test('random blocks lie where the first that is free lies, never on one another, and memory grows only where none is', () => {
  fc.assert(fc.property(fc.array(operation, { maxLength: 60 }), (operations) => {
    const memory = new WasmMemory();
    const plain = new PlainMemory();
    const live: { start: number; bytes: number }[] = [];
    for (const step of operations) {
      if ('allocate' in step) {
        const start = memory.allocate(step.allocate, 'test');
        is(start, plain.allocate(step.allocate));
        live.push({ start, bytes: step.allocate });
      } else if (live.length > 0) {
        const [{ start, bytes }] = live.splice(step.free % live.length, 1);
        memory.free(start);
        plain.free(start, bytes);
      }
      is(memory.memory.buffer.byteLength, plain.used.length * UNIT);
    }
    // All joined again: one block takes everything.
    for (const { start } of live) memory.free(start);
    const { byteLength } = memory.memory.buffer;
    is(memory.allocate(byteLength - 1024, 'everything'), 1024);
    is(memory.memory.buffer.byteLength, byteLength);
  }), { seed: SEED, numRuns: 400 });
});

test('what is freed is used again: memory stops growing', () => {
  const memory = new WasmMemory();
  const numbers = random(SEED);
  const sizes = Array.from({ length: 20 }, () => 1 + numbers.integer(50_000));
  const cycle = (): void => {
    for (const start of sizes.map((bytes) => memory.allocate(bytes, 'test')).reverse()) memory.free(start);
  };
  cycle();
  const { byteLength } = memory.memory.buffer;
  for (let i = 0; i < 100; i++) cycle();
  is(memory.memory.buffer.byteLength, byteLength);
});

test('growing renews the views and keeps what is in memory', () => {
  const memory = new WasmMemory();
  const at = memory.allocate(16, 'test');
  const { u8, i32, f32, view } = memory;
  f32[at >>> 2] = 1.5;
  is(view.getFloat32(at, true), 1.5);
  const high = memory.allocate(10 * 65536, 'test');
  for (const old of [u8, i32, f32]) is(old.length, 0);
  throws(() => view.getUint8(0));
  is(memory.f32[at >>> 2], 1.5);
  memory.i32[high >>> 2] = 0x04030201;
  is(memory.u8[high + 3], 4);
  is(memory.view.getInt32(high, true), 0x04030201);
  is(memory.u8, memory.u8);
});

test('a block is freed once', () => {
  const memory = new WasmMemory();
  const at = memory.allocate(100, 'test');
  throws(() => memory.free(at + 64), /no block begins at 1088/);
  memory.free(at);
  throws(() => memory.free(at), /no block begins at 1024/);
  is.not(memory.allocate(0, 'test'), memory.allocate(0, 'test'));
});

test('working memory is enlarged, not added up, and outlives a refusal', () => {
  const memory = new WasmMemory();
  const scratch = new Scratch(memory, 'working memory');
  const first = scratch.reserve(100);
  is(scratch.reserve(50), first);
  const next = memory.allocate(64, 'test');
  ok(scratch.reserve(2 ** 20) > next);
  is(memory.allocate(64, 'test'), first);
  throws(() => scratch.reserve(5 * GIB), /"working memory" expected to fit into WebAssembly memory/);
  const at = scratch.reserve(100);
  const other = memory.allocate(64, 'test');
  ok(other >= at + 100 || other + 64 <= at);
  is(scratch.reserve(100), at);
});

/** What the refusal says is left, in bytes. */
function leftIn(memory: WasmMemory): number {
  try {
    memory.allocate(4 * GIB, 'too much');
  } catch (error) {
    const message = /^"too much" expected to fit into WebAssembly memory, got 4294967296 bytes: (\d+) bytes are left of 4 GiB$/;
    return Number(message.exec((error as Error).message)![1]);
  }
  throw new Error('4 GiB fitted into 4 GiB less a page');
}

test('more than 4 GiB is refused by name, and nothing changes', () => {
  const memory = new WasmMemory();
  const first = memory.allocate(1000, 'test');
  const second = memory.allocate(1000, 'test');
  memory.free(first);
  const { byteLength } = memory.memory.buffer;
  for (const bytes of [4 * GIB, 2 ** 40, Number.MAX_SAFE_INTEGER]) {
    throws(
      () => memory.allocate(bytes, 'pages'),
      (error: unknown) => error instanceof RangeError && error.message.startsWith('"pages" expected to fit into WebAssembly memory, got '),
    );
    is(memory.memory.buffer.byteLength, byteLength);
  }
  is(leftIn(memory), 4 * GIB - UNIT - second - 1024);
  is(memory.allocate(1000, 'test'), first);
  is(memory.allocate(1000, 'test'), second + 1024);
  const left = leftIn(memory);
  throws(() => memory.allocate(left + 1, 'test'), /bytes are left of 4 GiB/);
  is(memory.allocate(left, 'test') + left, 4 * GIB - UNIT);
});

const sides: readonly SideOptions[] = [
  { dtype: 'e4m3fn' }, { dtype: 'e4m3fn', granularity: 'tensor' }, { dtype: 'e5m2', granularity: 'tensor' }, { dtype: 'f16' }, { dtype: 'f32' },
  { dtype: 'int8', granularity: 'group', groupSize: 8 }, { dtype: 'e4m3fn', granularity: 'channel' },
];
const PAGES = 4;

/** Every operation on four pages, with 64 tokens of two heads. */
function exercise(backend: WasmBackend, pages: WasmPages): AttendResult & NhdTensors {
  const { blockSize, kvHeads, headDim } = pages.layout;
  const tokens = PAGES * blockSize;
  const numbers = random(3);
  pages.import(poison(pages.layout, PAGES));
  const key = numbers.normals(tokens * kvHeads * headDim);
  const value = numbers.normals(tokens * kvHeads * headDim);
  // One for each channel, or of all.
  const given = pages.layout.k.granularity === 'channel' ? numbers.normals(kvHeads * headDim).map((x) => 0.01 + Math.abs(x)) : undefined;
  const scales = { kScale: given, vScale: given };
  backend.append({ pages, ...scales, key, value, slotMapping: Int32Array.from({ length: tokens }, (_, token) => token) });
  // The last page is read where it was copied from and written where it was.
  pages.copyPages([3, 0, 1], [0, 1, 3]);
  const q = Uint16Array.from({ length: 3 * 2 * kvHeads * headDim }, (_, i) => 0x3c00 + ((i * 37) & 0x83ff));
  const tables = { blockTable: Int32Array.of(0, 1, 2, 3), cuSeqlensQ: Int32Array.of(0, 3), seqUsedK: Int32Array.of(tokens) };
  const perHead = { sinks: numbers.normals(2 * kvHeads), alibiSlopes: numbers.normals(2 * kvHeads) };
  return { ...backend.attend({ pages, q, dtype: 'f16', ...tables, ...scales, ...perHead }), ...pages.export() };
}

const layouts = sides.map((side) => pageLayout({ kvHeads: 2, headDim: 64, blockSize: 16, k: side, v: side }));

/** A backend whose memory is taken up to an address, or undefined where the machine gives no such memory. */
function backendFrom(layout: PageLayout, address: number): WasmBackend | undefined {
  const backend = wasmBackend();
  const { memory } = backend.createPages(layout, 1);
  try {
    memory.allocate(address, 'what lies below');
    return backend;
  } catch (error) {
    if (!/the machine did not give/.test((error as Error).message)) throw error;
    console.log(`  not tested above 2 GiB: ${(error as Error).message}`);
    return undefined;
  }
}

function assertSameResults(actual: AttendResult & NhdTensors, expected: AttendResult & NhdTensors, what: string): void {
  for (const name of ['out', 'lse', 'keyCache', 'valueCache', 'keyScale', 'valueScale'] as const) {
    if (expected[name] !== undefined) assertSameBits(actual[name]!, expected[name], `${what}, ${name}`);
  }
}

/** Pages whose last byte is the last that is handed out. */
function lastPages(backend: WasmBackend, layout: PageLayout): WasmPages {
  const { memory } = backend.createPages(layout, 1);
  const left = leftIn(memory);
  const rest = memory.allocate(left, 'test');
  memory.free(rest);
  memory.allocate(left - layout.bytes * PAGES, 'test');
  let pages = backend.createPages(layout, PAGES);
  while (pages.address < 3 * GIB) pages = backend.createPages(layout, PAGES);
  is(pages.address + pages.byteLength, rest + left);
  return pages;
}

test('above 2 GiB, and up to the last byte, pages and working memory are as anywhere', () => {
  for (const [i, layout] of layouts.entries()) {
    const name = `${sides[i].dtype} ${layout.k.granularity}`;
    const low = wasmBackend();
    const expected = exercise(low, low.createPages(layout, PAGES));
    const backend = backendFrom(layout, 2.2 * GIB);
    if (backend === undefined) return;
    const pages = backend.createPages(layout, PAGES);
    ok(pages.address > 2 * GIB);
    // No gap is left below: the working memory of append and attend lies above too.
    assertSameResults(exercise(backend, pages), expected, `${name}, above 2 GiB`);
    assertSameResults(exercise(backend, lastPages(backend, layout)), expected, `${name}, below 4 GiB`);
  }
});
