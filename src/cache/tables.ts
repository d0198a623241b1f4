/** The index arrays of a step, as the backend takes them. */
import type { Held, PageGroup } from './groups.js';
import type { Reservation } from './step.js';

/** Keys of a group that one call of attention reads. */
export interface PartTables {
  /** Whether they are the first tokens that a ring keeps: no window hides them. */
  readonly sinks: boolean;
  /** [sequences, width], width at least that of the longest sequence */
  readonly blockTable: Int32Array;
  /** [sequences] */
  readonly seqUsedK: Int32Array;
  /** [sequences] */
  readonly contextLens: Int32Array;
  /** Whether `contextLens` says anything else than `seqUsedK`. */
  goesOn: boolean;
  /** Whether there are any. */
  hasKeys: boolean;
}

/** What layers of one group need. */
export interface GroupTables {
  /** [tokens]; negative: the token is not for this group. */
  readonly slotMapping: Int32Array;
  readonly parts: readonly PartTables[];
}

export interface StepTables {
  /** [sequences + 1] */
  readonly cuSeqlensQ: Int32Array;
  /** By number of the group. */
  readonly groups: readonly GroupTables[];
}

/** Keys of a sequence that lie in the pages of the first sinkTokens, and behind those. */
const keysOf = (group: PageGroup, { groups }: Reservation, g: number, sinks: boolean): number => {
  const { after } = groups[g];
  return sinks ? Math.min(group.sinkTokens, after.end) : Math.max(0, after.end - group.start(after));
};

const lengthOf = ({ sequence, tokens }: Reservation): number => sequence.length + tokens;

/** Rounded up to a power of two: a sequence that takes one more page seldom needs a wider table. */
const widthFor = (blocks: number): number => (blocks < 2 ? blocks : 2 ** (32 - Math.clz32(blocks - 1)));

/** Hands them out. The arrays of a step that has ended serve the next of the same size, so that decoding token by token makes none. */
export class TableStore {
  #spare: StepTables | undefined;

  constructor(private readonly groups: readonly PageGroup[]) {}

  take(reservations: readonly Reservation[]): StepTables {
    const sequences = reservations.length;
    let rows = 0;
    for (const { tokens } of reservations) rows += tokens;
    const spare = this.#spare;
    this.#spare = undefined;
    const tables = spare !== undefined && this.#fits(spare, reservations, rows) ? spare : {
      cuSeqlensQ: new Int32Array(sequences + 1),
      groups: this.groups.map((group, g) => this.#makeGroup(group, g, reservations, rows)),
    };
    let row = 0;
    for (let s = 0; s < sequences; s++) tables.cuSeqlensQ[s + 1] = row += reservations[s].tokens;
    for (let g = 0; g < this.groups.length; g++) this.#fill(this.groups[g], tables.groups[g], g, reservations);
    return tables;
  }

  /** Takes back the arrays of a step that nobody reads any more. */
  give(tables: StepTables): void {
    this.#spare = tables;
  }

  #width(group: PageGroup, g: number, reservations: readonly Reservation[], sinks: boolean): number {
    let keys = 0;
    for (const reservation of reservations) keys = Math.max(keys, keysOf(group, reservation, g, sinks));
    return widthFor(Math.ceil(keys / group.blockSize));
  }

  #fits({ cuSeqlensQ, groups }: StepTables, reservations: readonly Reservation[], rows: number): boolean {
    const sequences = reservations.length;
    if (cuSeqlensQ.length !== sequences + 1 || groups[0].slotMapping.length !== rows) return false;
    for (let g = 0; g < groups.length; g++) {
      for (const { blockTable, sinks } of groups[g].parts) {
        if (blockTable.length !== sequences * this.#width(this.groups[g], g, reservations, sinks)) return false;
      }
    }
    return true;
  }

  #makeGroup(group: PageGroup, g: number, reservations: readonly Reservation[], rows: number): GroupTables {
    const sequences = reservations.length;
    const part = (sinks: boolean): PartTables => ({
      sinks,
      blockTable: new Int32Array(sequences * this.#width(group, g, reservations, sinks)),
      seqUsedK: new Int32Array(sequences),
      contextLens: new Int32Array(sequences),
      goesOn: false,
      hasKeys: false,
    });
    return { slotMapping: new Int32Array(rows), parts: group.sinkTokens > 0 ? [part(true), part(false)] : [part(false)] };
  }

  #fill(group: PageGroup, tables: GroupTables, g: number, reservations: readonly Reservation[]): void {
    this.#fillSlots(group, tables.slotMapping, g, reservations);
    for (const part of tables.parts) this.#fillPart(group, part, g, reservations);
  }

  #fillSlots(group: PageGroup, slotMapping: Int32Array, g: number, reservations: readonly Reservation[]): void {
    let row = 0;
    for (const reservation of reservations) {
      const { sequence, tokens, groups } = reservation;
      const { after } = groups[g];
      const first = group.kind === 'residual' ? after.floor : 0;
      for (let token = sequence.length; token < sequence.length + tokens; token++) {
        slotMapping[row++] = token >= first && token < after.end ? group.slotOf(after, token) : -1;
      }
    }
  }

  #fillPart(group: PageGroup, part: PartTables, g: number, reservations: readonly Reservation[]): void {
    const { blockTable, seqUsedK, contextLens, sinks } = part;
    const width = blockTable.length / reservations.length;
    blockTable.fill(-1);
    part.goesOn = part.hasKeys = false;
    for (let s = 0; s < reservations.length; s++) {
      const { after } = reservations[s].groups[g];
      const keys = keysOf(group, reservations[s], g, sinks);
      seqUsedK[s] = keys;
      contextLens[s] = Math.max(keys, lengthOf(reservations[s]) - (sinks ? 0 : group.start(after)));
      part.goesOn ||= contextLens[s] !== keys;
      part.hasKeys ||= keys > 0;
      if (group.kind === 'ring') this.#fillRing(group, blockTable, s * width, after, keys, sinks);
      else blockTable.set(after.pages, s * width);
    }
  }

  /** The pages of a ring come round again and again. What lies before its floor no row sees, and a sequence may be without end. */
  #fillRing({ blockSize, sinkTokens, sinkPages, ringPages }: PageGroup, blockTable: Int32Array, at: number, { pages, floor }: Held, keys: number, sinks: boolean): void {
    const blocks = Math.ceil(keys / blockSize);
    const first = sinks ? 0 : Math.max(0, Math.floor((floor - sinkTokens) / blockSize));
    for (let block = first; block < blocks; block++) blockTable[at + block] = pages[sinks ? block : sinkPages + (block % ringPages)];
  }
}
