/** A bar for what takes long, and the way out of it. */

const WIDTH = 30;
/** Milliseconds between two drawings. */
const PAUSE = 100;

/** `1:05`, `1:02:05` */
function clock(seconds: number): string {
  const whole = Math.ceil(seconds);
  const digits = (n: number): string => `${n}`.padStart(2, '0');
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  return hours > 0 ? `${hours}:${digits(minutes)}:${digits(whole % 60)}` : `${minutes}:${digits(whole % 60)}`;
}

export interface ProgressFacts {
  readonly done: number;
  readonly total: number;
  readonly seconds: number;
}

/**
 * One line. What is left is what it took so far, times what is to be done.
 * @param columns of the terminal: a line that fills it begins another, which would stay
 */
export function progressLine({ done, total, seconds }: ProgressFacts, unit: string, columns = Infinity): string {
  const left = done === 0 ? '' : ` | ${clock((seconds / done) * (total - done))} left`;
  const words = ` ${Math.floor((100 * done) / total)} % | ${done} of ${total} ${unit}${left}`;
  const width = Math.max(0, Math.min(WIDTH, columns - 1 - words.length));
  const filled = Math.floor((width * done) / total);
  return `${'█'.repeat(filled)}${'░'.repeat(width - filled)}${words}`.slice(0, Math.max(0, columns - 1));
}

/** The user pressed Ctrl-C. */
export class Interrupted extends Error {}

type Output = Pick<NodeJS.WriteStream, 'isTTY' | 'write'> & { readonly columns?: number };

/** Draws on a terminal, and nowhere else. */
export class Progress {
  readonly #total: number;
  readonly #unit: string;
  readonly #output: Output;
  readonly #start = performance.now();
  #done = 0;
  #drawn = -Infinity;
  #interrupted = false;
  readonly #interrupt = (): void => {
    this.#interrupted = true;
  };

  /** @param unit of what there are `total`, in the plural */
  constructor(total: number, unit: string, output: Output = process.stderr) {
    this.#total = total;
    this.#unit = unit;
    this.#output = output;
    // Once: whoever presses it again means it.
    process.once('SIGINT', this.#interrupt);
    // The first step of a large model takes a while.
    this.#draw();
  }

  #draw(): void {
    const now = performance.now();
    if (!this.#output.isTTY || now - this.#drawn < PAUSE) return;
    this.#drawn = now;
    this.#output.write(`\r${progressLine({ done: this.#done, total: this.#total, seconds: (now - this.#start) / 1000 }, this.#unit, this.#output.columns)}\x1b[K`);
  }

  /**
   * One more is done.
   * @throws Interrupted after Ctrl-C
   */
  async step(): Promise<void> {
    this.#done++;
    this.#draw();
    await this.pause();
  }

  /**
   * Lets signals in, which computing without a pause keeps out.
   * @throws Interrupted after Ctrl-C
   */
  async pause(): Promise<void> {
    await new Promise((resolve) => void setImmediate(resolve));
    if (this.#interrupted) throw new Interrupted('interrupted: nothing was written');
  }

  /** Takes the bar away. */
  [Symbol.dispose](): void {
    process.removeListener('SIGINT', this.#interrupt);
    if (this.#output.isTTY) this.#output.write('\r\x1b[K');
  }
}
