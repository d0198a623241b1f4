/** Attention in plain float64, one row and key at a time: slow, to be read. Positions and masks as the documentation states them. */

export interface ReferenceCall {
  /** [rows, queryHeads, headDim] of one sequence. */
  readonly q: ArrayLike<number>;
  readonly queryHeads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly kvLen: number;
  /** Tokens, where there are more than keys: rows are the last of them. Default kvLen. */
  readonly contextLen?: number;
  /** Values of key j, head h, dimension d, scale included. */
  readonly key: (j: number, head: number, d: number) => number;
  readonly value: (j: number, head: number, d: number) => number;
  readonly causal?: boolean;
  readonly windowLeft?: number;
  readonly windowRight?: number;
  /** The first so many keys are seen past any window. */
  readonly sinkTokens?: number;
  readonly softcap?: number;
  readonly sinks?: ArrayLike<number>;
  readonly alibiSlopes?: ArrayLike<number>;
  readonly softmaxScale?: number;
}

export function referenceAttention(call: ReferenceCall): { out: Float64Array; lse: Float64Array } {
  const { q, queryHeads, kvHeads, headDim, kvLen, contextLen = kvLen, causal = true, windowLeft = -1, windowRight = -1, sinkTokens = 0, softcap = 0, softmaxScale = 1 / Math.sqrt(headDim) } = call;
  const rows = q.length / (queryHeads * headDim);
  const out = new Float64Array(q.length);
  const lse = new Float64Array(rows * queryHeads);
  for (let i = 0; i < rows; i++) {
    const position = contextLen - rows + i;
    const sees = (j: number): boolean =>
      (!causal || j <= position) && (windowLeft < 0 || j < sinkTokens || j >= position - windowLeft) && (windowRight < 0 || j <= position + windowRight);
    const keys = Array.from({ length: kvLen }, (_, j) => j).filter(sees);
    for (let h = 0; h < queryHeads; h++) {
      const head = Math.floor(h / (queryHeads / kvHeads));
      const at = (i * queryHeads + h) * headDim;
      const scores = keys.map((j) => {
        let dot = 0;
        for (let d = 0; d < headDim; d++) dot += q[at + d] * call.key(j, head, d);
        const s = dot * softmaxScale + (call.alibiSlopes?.[h] ?? 0) * (j - position);
        return softcap > 0 ? softcap * Math.tanh(s / softcap) : s;
      });
      const sink = call.sinks?.[h] ?? -Infinity;
      const largest = Math.max(sink, ...scores);
      lse[i * queryHeads + h] = keys.length === 0 ? sink : 0;
      if (keys.length === 0) continue;
      const weights = scores.map((s) => Math.exp(s - largest));
      const sum = weights.reduce((a, b) => a + b, 0) + Math.exp(sink - largest);
      lse[i * queryHeads + h] = largest + Math.log(sum);
      for (let d = 0; d < headDim; d++) out[at + d] = keys.reduce((total, j, n) => total + weights[n] * call.value(j, head, d), 0) / sum;
    }
  }
  return { out, lse };
}
