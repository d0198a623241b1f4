import { readAppendCase, runAppendCase, writeAppendResult } from '../files/append-case.js';
import { firstDifference, type ByteDifference } from '../files/compare.js';
import type { Command } from './command.js';
import { REPLAY_DETAILS, replayCases, type Outcome } from './replay.js';

const hex = (byte: number | undefined): string => (byte === undefined ? 'nothing' : `0x${byte.toString(16).padStart(2, '0')}`);

const describeDifference = ({ tensor, count, at, expected, actual }: ByteDifference): string =>
  `${tensor} differs in ${count} bytes, first at ${at}: expected ${hex(expected)}, got ${hex(actual)}`;

export const append: Command = {
  usage: 'append CASE.safetensors… [-o FILE | --out-dir DIR] [--backend wasm|webgpu]',
  summary: 'Replays append cases: keys and values in, the quantized cache out, compared with what the case expects.',
  details: REPLAY_DETAILS,
  run: (args) =>
    replayCases(args, async (backend, bytes, file): Promise<Outcome> => {
      const appendCase = readAppendCase(bytes, file);
      const { status, tensors } = await runAppendCase(backend, appendCase);
      const difference = firstDifference(tensors, appendCase.expected);
      return { result: writeAppendResult(tensors), difference: difference && describeDifference(difference), figures: { ...status } };
    }),
};
