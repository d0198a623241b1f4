/**
 * One module as what differs from another. The two builds of the kernels are alike but for some instructions: their difference takes
 * a tenth of the room of a second module.
 *
 * A patch is a list of pieces, each three numbers and some bytes: how far the copied bytes begin from where those before ended, plus and
 * minus in turn (0, −1, 1, −2 …); how many are copied; how many bytes follow, and these. Numbers are unsigned LEB128.
 */
export function applyPatch(from: Uint8Array, patch: Uint8Array, length: number): Uint8Array<ArrayBuffer> {
  const to = new Uint8Array(length);
  let [at, source, target] = [0, 0, 0];
  const number = (): number => {
    let [value, shift] = [0, 0];
    for (;;) {
      const byte = patch[at++];
      value |= (byte & 0x7f) << shift;
      if (byte < 0x80) return value;
      shift += 7;
    }
  };
  while (at < patch.length) {
    const moved = number();
    source += (moved >>> 1) ^ -(moved & 1);
    const copied = number();
    to.set(from.subarray(source, source + copied), target);
    source += copied;
    target += copied;
    const added = number();
    to.set(patch.subarray(at, at + added), target);
    at += added;
    target += added;
  }
  return to;
}
