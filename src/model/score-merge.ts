/**
 * The byte-pair encoding of llama2.c: of all adjacent pairs whose joined text is a token, the one of the highest score is
 * joined, the leftmost among equals, until there is none.
 *
 * Searched naively that takes a pass over the text per merge. Here the pairs wait in a heap, and the pieces are a linked
 * list in arrays: the 112 KB of eval.txt take 0.1 s.
 */
import type { Tokenizer } from './tokenizer.js';

export interface ScoreMergeJson {
  readonly bos: number;
  /** (text, score) of each token */
  readonly vocab: readonly (readonly [string, number])[];
}

/** A pair of neighbours, as they were when it was found. */
interface Merge {
  readonly score: number;
  /** Where the left piece begins. */
  readonly at: number;
  readonly left: number;
  readonly right: number;
  readonly joined: number;
}

const FIRST_BYTE = 3;
const EOS = 2;

/** @throws Error naming the file and what in it cannot be */
export function parseScoreMerge({ bos, vocab }: Record<string, unknown>, file: string): ScoreMergeJson {
  const isToken = (entry: unknown): boolean => Array.isArray(entry) && typeof entry[0] === 'string' && typeof entry[1] === 'number';
  if (!Array.isArray(vocab) || !vocab.every(isToken)) throw new Error(`${file}: "vocab" expected a list of [text, score]`);
  // What is no token is written in those of its bytes.
  if (vocab.length < FIRST_BYTE + 256) throw new Error(`${file}: "vocab" expected at least ${FIRST_BYTE + 256} tokens, of which 256 stand for bytes, got ${vocab.length}`);
  if (!Number.isInteger(bos) || !((bos as number) >= 0 && (bos as number) < vocab.length)) throw new Error(`${file}: "bos" expected a token below ${vocab.length}, got ${JSON.stringify(bos)}`);
  return { bos: bos as number, vocab };
}

export function scoreMergeTokenizer({ bos, vocab }: ScoreMergeJson): Tokenizer {
  const idOf = new Map(vocab.map(([text], id) => [text, id]));

  const characterTokens = (character: string): number[] => {
    const id = idOf.get(character);
    return id === undefined ? [...new TextEncoder().encode(character)].map((byte) => byte + FIRST_BYTE) : [id];
  };
  const mergeOf = (at: number, left: number, right: number): Merge | undefined => {
    const joined = idOf.get(vocab[left][0] + vocab[right][0]);
    return joined === undefined ? undefined : { score: vocab[joined][1], at, left, right, joined };
  };
  return {
    bos,
    eos: EOS,
    encode: (text) => [bos, ...(text === '' ? [] : mergeAll([...` ${text}`].flatMap(characterTokens), mergeOf))],
    decode: (ids) => decode(ids, bos, vocab),
  };
}

function mergeAll(pieces: number[], mergeOf: (at: number, left: number, right: number) => Merge | undefined): number[] {
  const end = pieces.length;
  const ids = Int32Array.from(pieces);
  const previous = Int32Array.from(ids, (_, at) => at - 1);
  const next = Int32Array.from(ids, (_, at) => at + 1);
  const heap = new MergeHeap();
  const consider = (at: number): void => {
    if (at < 0 || next[at] >= end) return;
    const merge = mergeOf(at, ids[at], ids[next[at]]);
    if (merge !== undefined) heap.push(merge);
  };
  for (let at = 0; at < end; at++) consider(at);

  for (let merge = heap.pop(); merge !== undefined; merge = heap.pop()) {
    const { at, left, right, joined } = merge;
    const gone = next[at];
    // Pieces only grow, so a pair that has changed since it was found shows in its ids; a joined piece's is −1.
    if (ids[at] !== left || gone >= end || ids[gone] !== right) continue;
    ids[at] = joined;
    ids[gone] = -1;
    next[at] = next[gone];
    if (next[at] < end) previous[next[at]] = at;
    consider(previous[at]);
    consider(at);
  }
  return [...ids].filter((id) => id >= 0);
}

/** A binary heap; the merge to do next is on top. */
class MergeHeap {
  private readonly merges: Merge[] = [];

  push(merge: Merge): void {
    const { merges } = this;
    let hole = merges.length;
    while (hole > 0) {
      const parent = (hole - 1) >> 1;
      if (!comesFirst(merge, merges[parent])) break;
      merges[hole] = merges[parent];
      hole = parent;
    }
    merges[hole] = merge;
  }

  pop(): Merge | undefined {
    const { merges } = this;
    const top = merges[0];
    const last = merges.pop();
    if (last === undefined || merges.length === 0) return top;
    let hole = 0;
    for (let child = 1; child < merges.length; child = 2 * hole + 1) {
      if (child + 1 < merges.length && comesFirst(merges[child + 1], merges[child])) child++;
      if (!comesFirst(merges[child], last)) break;
      merges[hole] = merges[child];
      hole = child;
    }
    merges[hole] = last;
    return top;
  }
}

const comesFirst = (a: Merge, b: Merge): boolean => a.score > b.score || (a.score === b.score && a.at < b.at);

function decode(ids: readonly number[], bos: number, vocab: ScoreMergeJson['vocab']): string {
  const encoder = new TextEncoder();
  const bytes: number[] = [];
  ids.forEach((id, index) => {
    if (id === bos || id === EOS) return;
    if (id >= FIRST_BYTE && id < FIRST_BYTE + 256) return bytes.push(id - FIRST_BYTE);
    const text = vocab[id][0];
    const drop = ids[index - 1] === bos && text.startsWith(' ') ? 1 : 0;
    bytes.push(...encoder.encode(text.slice(drop)));
  });
  return new TextDecoder().decode(Uint8Array.from(bytes));
}
