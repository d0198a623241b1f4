/** FlashInfer's grid: page sizes, decode lengths, windows, softcap, ALiBi, cascades. */
import { ok } from 'uvu/assert';
import { attendCascade, type AttendCall, type AttentionOptions, type Backend } from '../../src/index.js';
import { attentionError } from '../../src/files/compare.js';
import { random } from '../random.js';
import type { Suite } from '../suite.js';
import { World, type WorldOptions } from './world.js';

/** 2^(-8/n), and its powers; for a number of heads that is no power of two, every other slope of twice as many fills up. */
function alibiSlopes(heads: number): Float32Array {
  const powers = (n: number): number[] => Array.from({ length: n }, (_, i) => 2 ** ((-8 / n) * (i + 1)));
  const most = 2 ** Math.floor(Math.log2(heads));
  const more = powers(2 * most).filter((_, i) => i % 2 === 0);
  return Float32Array.from([...powers(most), ...more].slice(0, heads));
}

const heads = { kvHeads: 2, queryHeads: 4 };
const shape = { ...heads, headDim: 64, dtype: 'e4m3fn', scaleDivisor: 200 } as const;

async function check(backend: Backend, seed: number, options: WorldOptions, placement: number, each: readonly AttentionOptions[]): Promise<void> {
  const numbers = random(seed);
  const world = new World(numbers, options);
  const placed = await world.place(backend, numbers, placement);
  for (const attention of each) {
    const result = await backend.attend({ ...world.call(placed), ...attention });
    world.check(result, world.answer(attention), `${JSON.stringify(options.lengths)}, pages of ${placement}, ${JSON.stringify({ ...attention, alibiSlopes: attention.alibiSlopes?.length })}`);
  }
  placed.pages.dispose();
}

export function testFlashinfer(test: Suite, open: () => Backend): void {
  for (const page of [1, 8, 16]) {
    test(`flashinfer decode: pages of ${page}, kv 7, 19, 39 and 1170`, async () => {
      const lengths = [7, 19, 39, 1170].map((kv) => [1, kv] as const);
      const each = [{}, ...[3, 13, 23, 37, 43].map((windowLeft) => ({ windowLeft })), ...[1, 30, 50].map((softcap) => ({ softcap }))];
      await check(open(), page, { ...shape, lengths }, page, each);
    });

    test(`flashinfer decode: pages of ${page}, kv 39275`, () => check(open(), 100 + page, { ...shape, lengths: [[1, 39275]] }, page, [{}]));
  }

  test('flashinfer prefill: windows and softcap', () =>
    check(open(), 7, { ...shape, lengths: [[17, 54], [37, 170]] }, 16, [...[3, 13, 23, 37, 43].map((windowLeft) => ({ windowLeft })), ...[1, 30, 50].map((softcap) => ({ softcap }))]));

  for (const queryHeads of [4, 6, 8]) {
    test(`flashinfer ALiBi: ${queryHeads} heads`, async () => {
      const slopes = alibiSlopes(queryHeads);
      const each = [{ alibiSlopes: slopes }, { alibiSlopes: slopes, windowLeft: 43, softcap: 30 }, { alibiSlopes: slopes, causal: false }];
      await check(open(), 200 + queryHeads, { ...shape, queryHeads, lengths: [[1, 7], [1, 1170], [17, 54], [37, 37]] }, 8, each);
    });
  }

  for (const shared of [128, 512, 2048]) {
    test(`flashinfer cascade: ${shared} shared keys, 37 and 17 of their own`, async () => {
      const backend = open();
      const numbers = random(shared);
      const own = [37, 17, 37, 17];
      const world = new World(numbers, { ...shape, lengths: own.map((kv, i) => [i === 2 ? 17 : 1, shared + kv] as const) });
      // The prefix is what the first sequence has there.
      for (const side of [world.k, world.v]) {
        const rowFloats = heads.kvHeads * shape.headDim;
        for (let s = 1, at = shared + own[0]; s < own.length; at += shared + own[s++]) side.values.copyWithin(at * rowFloats, 0, shared * rowFloats);
      }
      const placed = await world.place(backend, numbers, 16);
      const sinks = numbers.normals(heads.queryHeads);
      const table = placed.blockTable!;
      const maxBlocks = table.length / own.length;
      const blocks = shared / 16;
      for (const options of [{}, { sinks }, { softcap: 30 }]) {
        const call: AttendCall = { ...world.call(placed), ...options };
        const plain = await backend.attend(call);
        const cascade = await attendCascade(backend, {
          ...(call as Omit<AttendCall, 'windowLeft'>),
          sharedBlocks: table.slice(0, blocks), sharedLen: shared,
          blockTable: Int32Array.from(own.flatMap((_, s) => [...table.subarray(s * maxBlocks + blocks, (s + 1) * maxBlocks)])),
          seqUsedK: Int32Array.from(own),
        });
        const error = attentionError(cascade, plain, shape.headDim);
        ok(error.out <= 1e-5 && error.lse <= 1e-5, `${Object.keys(options)}: out ${error.out}, lse ${error.lse}`);
      }
      placed.pages.dispose();
    });
  }
}
