import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { scoreMergeTokenizer, type ScoreMergeJson } from '../../src/model/score-merge.js';
import { readTokenizer } from '../../src/model/folder.js';
import { suite } from '../suite.js';
import { orator } from './orator.js';

const test = suite('model/tokenizer');

const text = readFileSync(`${orator}/eval.txt`, 'utf8');
const json = JSON.parse(readFileSync(`${orator}/tokenizer.json`, 'utf8')) as ScoreMergeJson;

/** The rule as it is stated: a search over all pairs before each merge. */
function encodeNaively(input: string, { bos, vocab }: ScoreMergeJson): number[] {
  const idOf = new Map(vocab.map(([piece], id) => [piece, id]));
  const bytesOf = (character: string): number[] => [...Buffer.from(character)].map((byte) => byte + 3);
  const ids = [...` ${input}`].flatMap((character) => idOf.get(character) ?? bytesOf(character));
  for (;;) {
    let best = { score: -Infinity, at: -1, id: -1 };
    for (let at = 0; at + 1 < ids.length; at++) {
      const id = idOf.get(vocab[ids[at]][0] + vocab[ids[at + 1]][0]);
      if (id !== undefined && vocab[id][1] > best.score) best = { score: vocab[id][1], at, id };
    }
    if (best.at < 0) return [bos, ...ids];
    ids.splice(best.at, 2, best.id);
  }
}

test('encodes as the naive rule does', async () => {
  const tokenizer = scoreMergeTokenizer(json);
  const samples = [text.slice(0, 3000), text.slice(50_000, 52_000), 'aaaaaaaaaa', '   \n\n\n  ', 'naïve – 鯨 \u{1f40b} <0x41>', '<s>'];
  for (const sample of samples) assert.equal(tokenizer.encode(sample), encodeNaively(sample, json));
});

test('takes the leftmost of equal pairs, and sees the pairs that a merge makes', async () => {
  const vocab: [string, number][] = [['<unk>', 0], ['<s>', 0], ['</s>', 0]];
  for (let byte = 0; byte < 256; byte++) vocab.push([`<0x${byte.toString(16)}>`, 0]);
  vocab.push([' ', -9], ['a', -9], ['b', -9], ['aa', -2], ['ab', -2], ['aab', -1], ['aaab', -5]);
  const tokenizer = scoreMergeTokenizer({ bos: 1, vocab });
  for (const sample of ['aaa', 'aaaa', 'aab', 'aaab', 'aaaab', 'abaab', 'baaabaaaab']) {
    assert.equal(tokenizer.encode(sample), encodeNaively(sample, { bos: 1, vocab }), sample);
  }
});

test('gives the text back, also where characters are no tokens', async () => {
  const tokenizer = await readTokenizer(orator);
  assert.is(tokenizer.decode(tokenizer.encode(text)), text);
  const unknown = 'naïve – 鯨 \u{1f40b}\t';
  assert.is(tokenizer.decode(tokenizer.encode(unknown)), unknown);
  assert.is(tokenizer.decode([]), '');
});

test('begins with bos, which an empty text is', async () => {
  const tokenizer = await readTokenizer(orator);
  assert.is(tokenizer.encode('Whale')[0], tokenizer.bos);
  assert.equal(tokenizer.encode(''), [tokenizer.bos]);
  assert.is(tokenizer.decode([tokenizer.bos, tokenizer.eos]), '');
});

test('what is no tokenizer is refused by the name of its file', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'fp8-kv-tokenizer-'));
  const file = join(folder, 'tokenizer.json');
  const { vocab } = json;
  const refusals: [string, RegExp][] = [
    ['{', /tokenizer.json expected JSON: /],
    ['null', /tokenizer.json expected a JSON object, got null$/],
    ['[1, 2]', /tokenizer.json expected a JSON object, got \[1, 2\]$/],
    ['{}', /tokenizer.json is neither a Hugging Face tokenizer nor a "llama2.c score-merge BPE"/],
    ...[
      [{}, /tokenizer.json: "vocab" expected a list of \[text, score\]/],
      [{ bos: 1, vocab: [...vocab, ['a']] }, /tokenizer.json: "vocab" expected a list of \[text, score\]/],
      [{ bos: 1, vocab: vocab.slice(0, 258) }, /tokenizer.json: "vocab" expected at least 259 tokens, of which 256 stand for bytes, got 258/],
      [{ bos: vocab.length, vocab }, /tokenizer.json: "bos" expected a token below 1024, got 1024/],
      [{ vocab }, /tokenizer.json: "bos" expected a token below 1024, got undefined/],
    ].map(([more, message]): [string, RegExp] => [JSON.stringify({ type: 'llama2.c score-merge BPE', ...(more as object) }), message as RegExp]),
  ];
  for (const [text, message] of refusals) {
    writeFileSync(file, text);
    const error = await readTokenizer(folder).catch((reason: Error) => reason);
    assert.match((error as Error).message, message);
  }
  rmSync(folder, { recursive: true });
});
