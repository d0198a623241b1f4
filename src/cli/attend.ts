import { readAttendCase, runAttendCase, writeAttendResult } from '../files/attend-case.js';
import { ATTENTION_BOUND, attentionError, type AttentionError } from '../files/compare.js';
import type { Command } from './command.js';
import { REPLAY_DETAILS, replayCases, type Outcome } from './replay.js';

function judge({ out, lse }: AttentionError, outBound: number): string | undefined {
  if (out > outBound) return `out is off by ${out.toExponential(2)} of its row, the bound is ${outBound}`;
  if (lse > ATTENTION_BOUND) return `lse is off by ${lse.toExponential(2)}, the bound is ${ATTENTION_BOUND}`;
  return undefined;
}

export const attend: Command = {
  usage: 'attend CASE.safetensors… [-o FILE | --out-dir DIR] [--backend wasm|webgpu]',
  summary: 'Replays attention cases: q and a paged cache in, out and lse out, compared with what the case expects.',
  details: REPLAY_DETAILS,
  run: (args) =>
    replayCases(args, async (backend, bytes, file): Promise<Outcome> => {
      const attendCase = readAttendCase(bytes, file);
      const actual = await runAttendCase(backend, attendCase);
      const result = writeAttendResult(attendCase, actual);
      const { expected, qShape } = attendCase;
      if (!expected.out && !expected.lse) return { result, figures: { rows: qShape[0] * qShape[1] } };
      const error = attentionError(actual, expected, qShape[2]);
      return { result, difference: judge(error, expected.outBound), figures: { out: Number(error.out.toPrecision(3)), lse: Number(error.lse.toPrecision(3)) } };
    }),
};
