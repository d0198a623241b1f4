import fc from 'fast-check';
import { equal, is, ok, throws } from 'uvu/assert';
import { KvCache, OutOfPagesError, wasmBackend, type FormatName, type Sequence, type Step } from '../../src/index.js';
import { ATTENTION_BOUND, attentionError } from '../../src/files/compare.js';
import { assertSameBits } from '../bits.js';
import { random } from '../random.js';
import { referenceAttention } from '../reference/attention.js';
import { suite } from '../suite.js';
import { attendDirectly, attendTo, concatenate, randomTokens, type LayerShape, type Tokens } from './tokens.js';

const test = suite('cache against a plain model');
const backend = wasmBackend();
const SEED = 8301;
const RUNS = 500;

const shape: LayerShape = { queryHeads: 2, kvHeads: 1, headDim: 8 };
const rowFloats = shape.queryHeads * shape.headDim;
const numbers = random(SEED);
/** What tokens may be, by number, for each layer. */
const vocabulary = [0, 1].map(() => Array.from({ length: 97 }, () => randomTokens(numbers, shape, 1)));
const queries = numbers.normals(20 * rowFloats);

/** The plain model of a sequence: its tokens' numbers. */
interface Plain {
  readonly sequence: Sequence;
  tokens: readonly number[];
}

interface OpenStep {
  readonly step: Step;
  readonly entries: readonly { readonly plain: Plain; readonly added: readonly number[] }[];
  /** Pages that it holds beside those of its sequences. */
  readonly pages: number;
}

type Pick = { readonly which: number; readonly tokens: number };
type SequenceCommand =
  | { readonly do: 'fork' | 'free' | 'attend'; readonly which: number }
  | { readonly do: 'truncate'; readonly which: number; readonly part: number };
type Command =
  | SequenceCommand
  | { readonly do: 'create' }
  | { readonly do: 'step' | 'begin'; readonly picks: readonly Pick[] }
  | { readonly do: 'commit'; readonly which: number }
  | { readonly do: 'abort'; readonly which: number; readonly layers: number };

/** Without bias: extreme numbers would pick the same sequence again and again. */
const which = fc.noBias(fc.nat(999));
const just = <T extends string>(value: T) => fc.constant(value);
const picks = fc.array(fc.record({ which, tokens: fc.nat(6) }), { minLength: 1, maxLength: 3 });
const command: fc.Arbitrary<Command> = fc.oneof(
  { weight: 1, arbitrary: fc.record({ do: just('create') }) },
  { weight: 6, arbitrary: fc.record({ do: just('step'), picks }) },
  { weight: 2, arbitrary: fc.record({ do: just('begin'), picks }) },
  { weight: 2, arbitrary: fc.record({ do: just('commit'), which }) },
  { weight: 2, arbitrary: fc.record({ do: just('abort'), which, layers: fc.nat(2) }) },
  { weight: 5, arbitrary: fc.record({ do: just('fork'), which }) },
  { weight: 3, arbitrary: fc.record({ do: just('truncate'), which, part: fc.integer({ min: 0, max: 100 }) }) },
  { weight: 2, arbitrary: fc.record({ do: just('free'), which }) },
  { weight: 1, arbitrary: fc.record({ do: just('attend'), which }) },
);

function assertInStep(sequence: Sequence): void {
  for (const action of [() => sequence.fork(), () => sequence.truncate(0), () => sequence.free()]) throws(action, /in a step/);
}

/** A cache and what it should be. */
class World {
  readonly cache: KvCache;
  live: Plain[] = [];
  open: OpenStep[] = [];
  /** How often commands had something to do that matters. */
  readonly seen = { steps: 0, copies: 0, shortages: 0, together: 0 };
  #next = 0;

  constructor(readonly dtype: FormatName, layers: number, readonly blockSize: number, readonly pages: number) {
    this.cache = new KvCache(backend, { ...shape, dtype, layers, blockSize, capacity: pages * blockSize });
    this.run({ do: 'create' });
  }

  isBusy(plain: Plain): boolean {
    return this.open.some(({ entries }) => entries.some((entry) => entry.plain === plain));
  }

  run(command: Command): void {
    if (command.do === 'create') {
      this.live.push({ sequence: this.cache.createSequence(), tokens: [] });
    } else if ('picks' in command) {
      const open = this.begin(command.picks);
      if (open && command.do === 'step') this.commit(open);
    } else if (command.do === 'commit' || command.do === 'abort') {
      const open = this.open[command.which % this.open.length];
      if (open === undefined) return;
      if (command.do === 'commit') this.commit(open);
      else this.abort(open, command.layers);
    } else {
      const plain = this.live[command.which % this.live.length];
      if (plain) this.act(command, plain);
    }
  }

  act(command: SequenceCommand, plain: Plain): void {
    if (command.do === 'attend') this.assertAttention(plain);
    else if (this.isBusy(plain)) assertInStep(plain.sequence);
    else if (command.do === 'fork') this.live.push({ sequence: plain.sequence.fork(), tokens: plain.tokens });
    else if (command.do === 'truncate') this.truncate(plain, Math.round((plain.tokens.length * command.part) / 100));
    else this.free(plain);
  }

  truncate(plain: Plain, length: number): void {
    plain.sequence.truncate(length);
    plain.tokens = plain.tokens.slice(0, length);
  }

  free(plain: Plain): void {
    plain.sequence.free();
    this.live = this.live.filter((each) => each !== plain);
  }

  /** Whether the page that new tokens begin in is another's too. */
  copies(plain: Plain, tokens: number): boolean {
    const page = plain.sequence.blocks[Math.floor(plain.tokens.length / this.blockSize)];
    return tokens > 0 && page !== undefined && this.live.some((other) => other !== plain && other.sequence.blocks.includes(page));
  }

  need(plain: Plain, tokens: number): number {
    const { length } = plain.tokens;
    return Math.ceil((length + tokens) / this.blockSize) - Math.ceil(length / this.blockSize) + (this.copies(plain, tokens) ? 1 : 0);
  }

  /** A step, where there is room. */
  begin(picks: readonly Pick[]): OpenStep | undefined {
    const chosen = new Map<Plain, number>();
    for (const { which, tokens } of picks) {
      const plain = this.live[which % this.live.length];
      if (plain !== undefined && !this.isBusy(plain)) chosen.set(plain, tokens);
    }
    const entries = [...chosen].map(([plain, tokens]) => ({ plain, added: Array.from({ length: tokens }, () => this.#next++ % 97) }));
    const pages = [...chosen].reduce((sum, [plain, tokens]) => sum + this.need(plain, tokens), 0);
    const begin = (): Step => this.cache.begin(entries.map(({ plain, added }) => ({ sequence: plain.sequence, tokens: added.length })));
    const have = this.cache.freePages;
    if (pages > have) {
      throws(begin, (error: unknown) => error instanceof OutOfPagesError && error.need === pages && error.have === have);
      this.seen.shortages++;
      return undefined;
    }
    this.seen.copies += [...chosen].filter(([plain, tokens]) => this.copies(plain, tokens)).length;
    const open = { step: begin(), entries, pages };
    this.open.push(open);
    this.seen.steps++;
    if (this.open.length > 1) this.seen.together++;
    return open;
  }

  tokensOf(layer: number, tokens: readonly number[]): Tokens {
    return concatenate(tokens.map((token) => vocabulary[layer][token]));
  }

  append({ step, entries }: OpenStep, layer: number): void {
    const { key, value } = this.tokensOf(layer, entries.flatMap(({ added }) => added));
    equal(step.append(layer, key, value), { written: step.tokens, skipped: 0 });
  }

  commit(open: OpenStep): void {
    const q = queries.subarray(0, open.step.tokens * rowFloats);
    for (let layer = 0; layer < this.cache.layers; layer++) {
      this.append(open, layer);
      const { out } = open.step.attendSync(layer, q);
      let row = 0;
      for (const { plain, added } of open.entries) {
        const [start, end] = [row * rowFloats, (row += added.length) * rowFloats];
        const own = this.tokensOf(layer, [...plain.tokens, ...added]);
        const expected = attendDirectly(backend, { ...shape, dtype: this.dtype }, own, q.subarray(start, end));
        assertSameBits(out.subarray(start, end), expected.out, `step, layer ${layer}`);
      }
    }
    open.step.commit();
    for (const { plain, added } of open.entries) plain.tokens = [...plain.tokens, ...added];
    this.open = this.open.filter((each) => each !== open);
  }

  abort(open: OpenStep, layers: number): void {
    for (let layer = 0; layer < Math.min(layers, this.cache.layers); layer++) this.append(open, layer);
    open.step.abort();
    this.open = this.open.filter((each) => each !== open);
  }

  /** The lengths, and that a page is free exactly when nobody can reach it. */
  assertAccounts(): void {
    for (const { sequence, tokens } of this.live) {
      is(sequence.length, tokens.length);
      is(sequence.blocks.length, Math.ceil(tokens.length / this.blockSize));
    }
    const reached = new Set(this.live.flatMap(({ sequence }) => sequence.blocks));
    const held = this.open.reduce((sum, { pages }) => sum + pages, 0);
    is(reached.size + held, this.pages - this.cache.freePages);
  }

  assertAttention({ sequence, tokens }: Plain): void {
    const q = queries.subarray(0, 2 * rowFloats);
    for (let layer = 0; layer < this.cache.layers; layer++) {
      const actual = attendTo(backend, this.cache, layer, sequence, q, shape);
      const own = this.tokensOf(layer, tokens);
      const expected = attendDirectly(backend, { ...shape, dtype: this.dtype }, own, q);
      assertSameBits(actual.out, expected.out, `layer ${layer}, out`);
      assertSameBits(actual.lse, expected.lse, `layer ${layer}, lse`);
      if (this.dtype !== 'f32') continue;
      const { headDim } = shape;
      const at = (x: Float32Array) => (j: number, _: number, d: number): number => x[j * headDim + d];
      const { out, lse } = referenceAttention({ ...shape, q, kvLen: tokens.length, key: at(own.key), value: at(own.value) });
      const error = attentionError(actual, { out: Float32Array.from(out), lse: Float32Array.from(lse) }, headDim);
      ok(error.out <= ATTENTION_BOUND && error.lse <= ATTENTION_BOUND, `out ${error.out}, lse ${error.lse}`);
    }
  }

  /** Ends what is open, looks at everything, frees everything. */
  finish(): void {
    for (const open of this.open) this.abort(open, 1);
    this.live.forEach((plain) => this.assertAttention(plain));
    for (const plain of this.live) this.free(plain);
    is(this.cache.freePages, this.pages);
  }
}

for (const dtype of ['f32', 'e4m3fn'] as const) {
  test(`random operations, ${dtype}`, () => {
    const seen = { steps: 0, copies: 0, shortages: 0, together: 0 };
    const shapes = [fc.constantFrom(1, 2), fc.constantFrom(1, 3, 4), fc.integer({ min: 2, max: 20 })] as const;
    fc.assert(
      fc.property(...shapes, fc.array(command, { minLength: 5, maxLength: 60, size: 'max' }), (layers, blockSize, pages, commands) => {
        const world = new World(dtype, layers, blockSize, pages);
        try {
          for (const each of commands) {
            world.run(each);
            world.assertAccounts();
          }
          world.finish();
        } finally {
          world.cache.dispose();
        }
        for (const what of ['steps', 'copies', 'shortages', 'together'] as const) seen[what] += world.seen[what];
      }),
      { seed: SEED, numRuns: RUNS },
    );
    // Else the commands would not be about much.
    for (const [what, times] of Object.entries(seen)) ok(times > RUNS / 2, `${what}: ${times}`);
  });
}
