/** Where a checkpoint is: files that lie side by side, or one file alone, of which pieces can be read. */
import { describe } from '../formats.js';
import { fileSource, pathOf } from './folder.js';
import { urlSource } from './url.js';

/** Files by name, of which pieces are read. */
export interface CheckpointSource {
  /** What to call the place in messages. */
  readonly name: string;
  /** The file's name, where the place is a single file. */
  readonly only?: string;
  /** Names of all files, where the place can tell. */
  list?(): Promise<readonly string[]>;
  /**
   * Bytes `begin` to `end` − 1 of a file: fewer where it ends before, none where it ends before `begin`.
   * @returns undefined where there is no such file
   */
  read(file: string, begin: number, end: number): Promise<Uint8Array | undefined>;
}

/** What is used of a URL: programs need not know the names of the web. */
interface UrlLike {
  readonly href: string;
}

/** What is used of a Blob, or a File. */
interface BlobLike {
  readonly name?: string;
  slice(begin: number, end: number): { arrayBuffer(): Promise<ArrayBuffer> };
}

/** What is used of an AbortSignal. */
export interface SignalLike {
  readonly aborted: boolean;
}

/** Files by name. */
type Files = ReadonlyMap<string, BlobLike | Uint8Array> | { readonly [name: string]: BlobLike | Uint8Array };

/**
 * Where a checkpoint may be: a folder or a file by its path (in Node); the URL of a folder, of a repository of Hugging Face or of
 * a file; a file's bytes or Blob; files by name; or anything else that reads pieces of files.
 */
export type CheckpointPlace = string | UrlLike | BlobLike | Uint8Array | Files | CheckpointSource;

const isBlob = (place: object): place is BlobLike => 'slice' in place && 'arrayBuffer' in place && typeof place.slice === 'function';

const isSource = (place: object): place is CheckpointSource => 'read' in place && typeof place.read === 'function';

const isUrl = (place: object): place is UrlLike => 'href' in place && typeof place.href === 'string';

/** @throws TypeError for what is no place; Error for a path where there is nothing */
export async function openPlace(place: CheckpointPlace, signal?: SignalLike): Promise<CheckpointSource> {
  if (typeof place === 'string') return /^https?:\/\//i.test(place) ? urlSource(new URL(place), signal) : fileSource(pathOf(place));
  if (typeof place !== 'object' || place === null || place instanceof ArrayBuffer) throw notAPlace(place);
  if (isUrl(place)) return place.href.startsWith('file:') ? fileSource(pathOf(new URL(place.href))) : urlSource(new URL(place.href), signal);
  if (place instanceof Uint8Array || isBlob(place)) return singleSource(place);
  if (isSource(place)) return place;
  return filesSource(place instanceof Map ? (place as Map<string, BlobLike | Uint8Array>) : new Map(Object.entries(place)));
}

const notAPlace = (place: unknown): TypeError =>
  new TypeError(`"source" expected a path, a URL, a Blob, a Uint8Array, files by name or an object with read(), got ${describe(place)}`);

function singleSource(file: BlobLike | Uint8Array): CheckpointSource {
  const name = 'name' in file && typeof file.name === 'string' ? file.name : 'the file';
  return { name, only: name, read: (_, begin, end) => piece(file, begin, end) };
}

function filesSource(files: ReadonlyMap<string, BlobLike | Uint8Array>): CheckpointSource {
  for (const [name, file] of files) {
    if (!(file instanceof Uint8Array) && (typeof file !== 'object' || file === null || !isBlob(file))) {
      throw new TypeError(`"source" expected a Blob or a Uint8Array for ${JSON.stringify(name)}, got ${describe(file)}`);
    }
  }
  return {
    name: 'the files',
    list: async () => [...files.keys()],
    read: async (name, begin, end) => {
      const file = files.get(name);
      return file && piece(file, begin, end);
    },
  };
}

async function piece(file: BlobLike | Uint8Array, begin: number, end: number): Promise<Uint8Array> {
  return file instanceof Uint8Array ? file.subarray(begin, end) : new Uint8Array(await file.slice(begin, end).arrayBuffer());
}
