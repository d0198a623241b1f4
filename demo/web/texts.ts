/** What each cache's model says, side by side, and where the texts part. */
import { count } from '../../src/evaluate/report/text.js';
import type { Pair, Said, Started } from './compare.js';
import { byId, element, oncePerFrame } from './dom.js';

/** One cache's text, as it grows. */
class Column {
  readonly #text: HTMLElement;
  #given = element('span', { class: 'given' });
  #common = element('span');
  #own = element('span', { class: 'own' });

  constructor(side: 'a' | 'b') {
    this.#text = byId(`text-${side}`);
    this.#text.append(element('span', { class: 'waiting' }, 'The text will stand here.'));
  }

  begin(prompt: string): void {
    this.#given = element('span', { class: 'given' }, prompt);
    this.#common = element('span');
    this.#own = element('span', { class: 'own' });
    this.#text.replaceChildren(this.#given, this.#common);
  }

  add(piece: string, parted: boolean): void {
    if (parted && !this.#own.isConnected) this.part();
    (parted ? this.#own : this.#common).append(piece);
  }

  /** From here on the text is its own. */
  part(): void {
    this.#text.append(element('span', { class: 'parting', role: 'img', 'aria-label': 'the texts part here' }), this.#own);
  }
}

export class Texts {
  readonly #columns: Pair<Column> = [new Column('a'), new Column('b')];
  readonly #parting = byId('parting');
  #said: Said[] = [];
  #tokens = 0;
  #partedAt: number | undefined;
  readonly #show = oncePerFrame(() => this.#flush());

  /** Tokens that each has said, or would have if it had not ended. */
  get tokens(): number {
    return this.#tokens;
  }

  /** The first token, counted from 1, that differs. */
  get partedAt(): number | undefined {
    return this.#partedAt;
  }

  begin({ prompt }: Started): void {
    this.#said = [];
    this.#tokens = 0;
    this.#partedAt = undefined;
    for (const column of this.#columns) column.begin(prompt.join(''));
    this.#parting.textContent = 'not yet';
  }

  add(said: Said): void {
    this.#tokens++;
    if (said.parted) this.#partedAt ??= this.#tokens;
    this.#said.push(said);
    this.#show();
  }

  /** What they came to, in words. */
  get outcome(): string {
    return this.#partedAt === undefined ? `the same ${count(this.#tokens)} tokens` : `the texts part at token ${count(this.#partedAt)}`;
  }

  end(): void {
    this.#flush();
    if (this.#partedAt === undefined) this.#parting.textContent = 'nowhere';
  }

  #flush(): void {
    for (const { pieces, parted } of this.#said) {
      for (const [i, column] of this.#columns.entries()) {
        const piece = pieces[i];
        if (piece !== undefined) column.add(piece, parted);
      }
    }
    this.#said = [];
    if (this.#partedAt !== undefined) this.#parting.replaceChildren(`at token ${count(this.#partedAt)}`);
  }
}
