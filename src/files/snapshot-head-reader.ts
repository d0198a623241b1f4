/**
 * A snapshot's head out of its JSON: checked field by field, then for what fields say of each other, before anything is made
 * of it. One that could not be read is not written, either.
 */
import { formats } from '../formats.js';
import { pageLayout } from '../layout.js';
import { checkPolicy, granularities, isGiven } from '../policies.js';
import { quotients, resolveRecipe, scalePrecisions, type Recipe } from '../recipe.js';
import { JsonScanner } from './json.js';
import {
  givenShape, layerTensors, type SnapshotChain, type SnapshotGroup, type SnapshotHead, type SnapshotHeld, type SnapshotLayer, type SnapshotResidual, type SnapshotSequence,
  type SnapshotSide,
} from './snapshot-head.js';
import { byteCount, quote } from './tensor.js';

/**
 * Reads a head.
 * @param fail makes the error of what does not fit
 */
export function readHead(text: string, fail: (reason: string) => Error): SnapshotHead {
  const head = new HeadReader(text, fail).read();
  const refuse = (reason: string): never => {
    throw fail(reason);
  };
  head.layers.forEach((layer, index) => checkLayer(head, layer, `layers[${index}]`, refuse));
  head.sequences.forEach((sequence, index) => checkSequence(head, sequence, `sequences[${index}]`, refuse));
  const bytes = head.layers.reduce((sum, _, index) => layerTensors(head, index).reduce((all, { dtype, shape }) => all + byteCount(dtype, shape), sum), 0);
  // The checksums come behind.
  if (bytes + 32 * (head.layers.length + 1) > Number.MAX_SAFE_INTEGER) refuse('the tensors have over 2^53 - 1 bytes');
  return head;
}

/** Throws what says why. */
type Refuse = (reason: string) => never;

function checkLayer({ groups }: SnapshotHead, layer: SnapshotLayer, what: string, refuse: Refuse): void {
  const { group, kvHeads, headDim, k, v, residual } = layer;
  if (group >= groups.length) refuse(`${what}.group expected one of ${groups.length} groups, got ${group}`);
  if (residual && residual.group >= groups.length) refuse(`${what}.residual.group expected one of ${groups.length} groups, got ${residual.group}`);
  try {
    const side = ({ format, granularity, groupSize }: SnapshotSide) => ({ dtype: format, granularity, groupSize });
    pageLayout({ kvHeads, headDim, blockSize: 1, k: side(k), v: side(v) });
    for (const name of ['k', 'v'] as const) if (layer[name].recipe) checkPolicy(layer[name], name, resolveRecipe(layer[name].recipe));
  } catch (error) {
    refuse(`${what}: ${(error as Error).message}`);
  }
  checkScales(k, layer, `${what}.k`, refuse);
  checkScales(v, layer, `${what}.v`, refuse);
}

function checkScales(side: SnapshotSide, layer: SnapshotLayer, what: string, refuse: Refuse): void {
  const { format, granularity, recipe, givenScales } = side;
  if (isGiven(granularity) !== (recipe === undefined)) refuse(`${what}.recipe expected ${isGiven(granularity) ? 'to be absent' : 'to be there'} with granularity ${granularity}`);
  if (givenScales === undefined) return;
  if (!isGiven(granularity) || !formats[format].quantized) refuse(`${what}.givenScales expected to be absent with ${format} of granularity ${granularity}`);
  const most = givenShape(side, layer).reduce((a, b) => a * b, 1);
  if (givenScales !== most) refuse(`${what}.givenScales expected 1${most > 1 ? ` or ${most}` : ''}, got ${givenScales}`);
}

function checkSequence(head: SnapshotHead, { length, held, hashes }: SnapshotSequence, what: string, refuse: Refuse): void {
  if (held.length !== head.groups.length) refuse(`${what}.held expected ${head.groups.length} groups, got ${held.length}`);
  held.forEach((one, group) => checkHeld(one, length, head.groups[group].tokens, `${what}.held[${group}]`, refuse));
  if (hashes === undefined) return;
  if (head.chain === undefined) return refuse(`chain expected to be there, as ${what} has hashes`);
  const pages = Math.floor(length / head.chain.blockSize);
  if (hashes.length > pages) refuse(`${what}.hashes expected at most ${pages}, as there are full pages, got ${hashes.length}`);
}

function checkHeld({ sinks, floor, end, runs }: SnapshotHeld, length: number, rows: number, what: string, refuse: Refuse): void {
  if (!(sinks <= floor && floor <= end && end <= length)) refuse(`${what} expected sinks ≤ floor ≤ end ≤ ${length}, got ${sinks}, ${floor}, ${end}`);
  const positions = sinks + (end - floor);
  let left = positions;
  for (const [index, [first, count]] of runs.entries()) {
    if (first + count > rows) refuse(`${what}.runs[${index}] expected to end within ${rows} rows, got ${count} from ${first}`);
    if (count > left) refuse(`${what}.runs expected ${positions} rows, got more`);
    left -= count;
  }
  if (left > 0) refuse(`${what}.runs expected ${positions} rows, got ${positions - left}`);
  const sorted = [...runs].sort(([a], [b]) => a - b);
  sorted.forEach(([first], i) => {
    if (i > 0 && first < sorted[i - 1][0] + sorted[i - 1][1]) refuse(`${what}.runs expected no row twice, got row ${first}`);
  });
}

/** How to read each field of an object, told what to call it in errors. */
type Fields<T> = { readonly [K in keyof T]-?: (what: string) => T[K] };

/** Reads the head's text: types and ranges of all fields. What fields say of each other is checked afterwards. */
class HeadReader extends JsonScanner {
  constructor(
    text: string,
    private readonly fail: (reason: string) => Error,
  ) {
    const bytes = new TextEncoder().encode(text);
    super(bytes, 0, bytes.length);
  }

  read(): SnapshotHead {
    const head = this.record<SnapshotHead>('the head', {
      version: (what) => this.version(what),
      chain: (what) => this.record<SnapshotChain>(what, { root: this.hash, blockSize: this.count(1) }),
      layers: this.listOf((what) => this.layer(what), 1),
      groups: this.listOf((what) => this.record<SnapshotGroup>(what, { tokens: this.count() })),
      sequences: this.listOf((what) => this.sequence(what)),
    }, ['chain']);
    this.finish('the head');
    return head;
  }

  protected override error(reason: string, at = this.at): Error {
    return this.fail(`${reason} (byte ${at} of the head)`);
  }

  private version(what: string): 1 {
    const version = this.integer(what);
    if (version !== 1) throw this.error(`${what} expected 1, got ${version}`);
    return version;
  }

  private layer(what: string): SnapshotLayer {
    const side = (name: string): SnapshotSide => this.side(name);
    return this.record<SnapshotLayer>(what, {
      group: this.count(), kvHeads: this.count(1), headDim: this.count(1), k: side, v: side, window: this.count(1), sinkTokens: this.count(),
      residual: (name) => this.record<SnapshotResidual>(name, {
        group: this.count(), tokens: this.count(1), dtype: this.oneOf({ f16: 0, f32: 0 }), rule: this.shortText,
      }),
    }, ['window', 'sinkTokens', 'residual']);
  }

  private side(what: string): SnapshotSide {
    return this.record<SnapshotSide>(what, {
      format: this.oneOf(formats), granularity: this.oneOf(granularities), groupSize: this.count(1), recipe: (name) => this.recipe(name), givenScales: this.count(1),
    }, ['groupSize', 'recipe', 'givenScales']);
  }

  private recipe(what: string): Recipe {
    const number = (name: string): number => this.number(name);
    const int8 = (name: string) => this.record<NonNullable<Recipe['int8']>>(name, { divisor: number, least: (field) => this.number(field) as -127 | -128 });
    return this.record<Recipe>(what, {
      name: this.shortText, amaxFloor: number, scaleFloor: number, scaleIfZero: number, quotient: this.oneOf(quotients),
      int8, int8Only: (name) => this.boolean(name), scalePrecision: this.oneOf(scalePrecisions),
    }, ['int8', 'int8Only', 'scalePrecision']);
  }

  private sequence(what: string): SnapshotSequence {
    const held = (name: string): SnapshotHeld => this.record<SnapshotHeld>(name, { sinks: this.count(), floor: this.count(), end: this.count(), runs: this.listOf(this.run) });
    return this.record<SnapshotSequence>(what, {
      length: this.count(), held: this.listOf(held), due: (name) => this.boolean(name), hashes: this.listOf(this.hash),
    }, ['due', 'hashes']);
  }

  private record<T extends object>(what: string, fields: Fields<T>, optional: readonly (keyof T)[] = []): T {
    const record: Partial<T> = {};
    const start = this.skipSpace();
    this.object((name, at) => {
      if (!Object.hasOwn(fields, name)) throw this.error(`${what} has an unknown field ${quote(name)}`, at);
      const key = name as keyof T & string;
      record[key] = fields[key](`${what}.${key}`);
    });
    for (const key of Object.keys(fields) as (keyof T & string)[]) {
      if (!Object.hasOwn(record, key) && !optional.includes(key)) throw this.error(`${what} has no ${key}`, start);
    }
    return record as T;
  }

  private listOf<T>(element: (what: string) => T, least = 0) {
    return (what: string): T[] => {
      const list = this.array(what, (index) => element(`${what}[${index}]`));
      if (list.length < least) throw this.error(`${what} expected at least ${least}, got ${list.length}`);
      return list;
    };
  }

  /** A first row, and how many there are. */
  private readonly run = (what: string): readonly [number, number] => {
    const [first, count] = this.array(what, (index) => {
      if (index > 1) throw this.error(`${what} expected 2 integers, got more`);
      return this.count(index)(what);
    });
    if (count === undefined) throw this.error(`${what} expected 2 integers`);
    return [first, count];
  };

  private count(least = 0) {
    return (what: string): number => {
      const count = this.integer(what);
      if (count < least) throw this.error(`${what} expected at least ${least}, got ${count}`);
      return count;
    };
  }

  private oneOf<N extends string>(names: { readonly [name in N]: unknown }) {
    return (what: string): N => {
      const name = this.string(what);
      if (!Object.hasOwn(names, name)) throw this.error(`${what} expected one of ${Object.keys(names).join(', ')}, got ${quote(name)}`);
      return name as N;
    };
  }

  private readonly shortText = (what: string): string => {
    const text = this.string(what);
    if (text.length > 64) throw this.error(`${what} expected at most 64 characters, got ${text.length}`);
    return text;
  };

  private readonly hash = (what: string): string => {
    const text = this.string(what);
    if (!/^[\da-f]{64}$/.test(text)) throw this.error(`${what} expected 64 hex digits, got ${quote(text)}`);
    return text;
  };
}
