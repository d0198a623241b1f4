/** Groups of pages: what a step is said to need is what it takes, whatever is shared. */
import { equal, is, ok } from 'uvu/assert';
import { BlockPool } from '../../src/cache/blocks.js';
import { holdsNothing, PageGroup, type GroupShape, type Held } from '../../src/cache/groups.js';
import { random } from '../random.js';
import { suite } from '../suite.js';

const test = suite('groups of pages');

const pageCount = 400;
const all: GroupShape = { kind: 'all', blockSize: 4, pageCount, capacity: Infinity, window: Infinity, sinkTokens: 0, late: false };
const ring = (capacity: number, sinkTokens = 0): GroupShape => ({ ...all, kind: 'ring', capacity, window: 1, sinkTokens });
const shapes: readonly GroupShape[] = [all, { ...all, kind: 'residual' }, ring(8), ring(9), ring(13), ring(13, 3), ring(8, 9), ring(3, 4), { ...ring(13), blockSize: 13 }];

for (const shape of shapes) {
  test(`pages needed are pages taken: ${shape.kind} of ${shape.capacity}, ${shape.sinkTokens} first tokens, pages of ${shape.blockSize}`, () => {
    const numbers = random(31);
    let shared = 0;
    for (let run = 0; run < 60; run++) {
      const group = new PageGroup(shape, new BlockPool(pageCount));
      const sequences: Held[] = [holdsNothing, holdsNothing];
      for (let turn = 0; turn < 40; turn++) {
        const which = numbers.integer(sequences.length);
        const before = sequences[which];
        if (numbers.integer(4) === 0) {
          const other = sequences.length < 4 ? sequences.length : (which + 1) % 4;
          if (other < sequences.length) group.release(sequences[other]);
          group.share(before);
          sequences[other] = before;
          continue;
        }
        // Of a ring also more than it keeps, as where a residual is quantized all at once.
        const end = before.end + 1 + numbers.integer(numbers.integer(3) === 0 ? 30 : 6);
        const floor = shape.kind === 'residual' ? before.floor + numbers.integer(Math.ceil((before.end - before.floor) / 4) + 1) * 4 : 0;
        const growth = { floor, begin: Math.max(floor, before.end), end };
        const needed = group.pagesNeeded(before, growth);
        const free = group.pool.free;
        const reservation = group.reserve(before, growth);
        is(reservation.taken.length, needed, `run ${run}, turn ${turn}`);
        is(group.pool.free, free - needed);
        ok(new Set(reservation.taken).size === needed);
        shared += reservation.copies.length;
        if (numbers.integer(5) === 0) sequences[which] = group.abort(reservation, false);
        else {
          group.commit(reservation);
          sequences[which] = reservation.after;
        }
        equal(sequences[which].pages.filter((page) => !Number.isInteger(page)), []);
      }
      for (const held of sequences) group.release(held);
      is(group.pool.free, pageCount);
    }
    ok(shared > 100, `${shared} pages were copied`);
  });
}
