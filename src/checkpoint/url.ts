/** Files of a web server, read by range requests. */
import { warn } from '../warn.js';
import type { CheckpointSource, SignalLike } from './source.js';

/** A URL of one file ends with its name; all others are folders. */
const isFile = ({ pathname }: URL): boolean => /\.(safetensors|json)$/i.test(pathname);

/**
 * Files under a URL. A server that ignores ranges and sends all is put up with: what comes before the piece is thrown away, and
 * what comes after it is not waited for.
 */
export function urlSource(given: URL, signal: SignalLike | undefined): CheckpointSource {
  const url = resolved(given);
  const single = isFile(url);
  if (!single && !url.pathname.endsWith('/')) url.pathname += '/';
  let hasWarned = false;
  const request: Requester = {
    signal,
    rangeIgnored: () => {
      if (!hasWarned) warn(`${url.href}: the server does not send pieces of files: what lies before a scale has to be sent, too`);
      hasWarned = true;
    },
  };
  if (single) return { name: url.href, only: fileName(url), read: (_, begin, end) => fetchPiece(url, begin, end, request) };
  return { name: url.href, read: (file, begin, end) => fetchPiece(inFolder(url, file), begin, end, request) };
}

/** Who asks for pieces. */
interface Requester {
  readonly signal: SignalLike | undefined;
  /** Told of each piece that comes with all that lies before it. */
  rangeIgnored(): void;
}

/** The same place, of a repository of Hugging Face the one where the files are, not the pages about them. */
function resolved(given: URL): URL {
  const url = new URL(given);
  url.hash = '';
  if (url.hostname !== 'huggingface.co' && url.hostname !== 'hf.co') return url;
  const parts = url.pathname.split('/').filter((part) => part !== '');
  if (parts.length === 2) parts.push('resolve', 'main');
  else if (parts[2] === 'tree' || parts[2] === 'blob') parts[2] = 'resolve';
  url.pathname = `/${parts.join('/')}`;
  return url;
}

function fileName({ pathname }: URL): string {
  const name = pathname.split('/').at(-1)!;
  try {
    return decodeURIComponent(name);
  } catch {
    // A % that escapes nothing.
    return name;
  }
}

/** The query stays: it may be what grants access. */
function inFolder(folder: URL, file: string): URL {
  const url = new URL(folder);
  url.pathname += encodeURIComponent(file);
  return url;
}

/** Of the parts of fetch that are used here, since programs need not know the names of the web. */
interface PieceResponse {
  readonly ok: boolean;
  readonly status: number;
  readonly statusText: string;
  readonly headers: { get(name: string): string | null };
  readonly body: { cancel(): Promise<void>; getReader(): PieceReader } | null;
}

interface PieceReader {
  read(): Promise<{ readonly done: boolean; readonly value?: Uint8Array | undefined }>;
  cancel(): Promise<void>;
}

/** @throws Error with the URL, and the status or why nothing came; what the signal was aborted with */
async function fetchPiece(url: URL, begin: number, end: number, { signal, rangeIgnored }: Requester): Promise<Uint8Array | undefined> {
  const response = await request(url, begin, end, signal);
  const { status } = response;
  const isMissing = status === 404 || status === 410 || isPage(response);
  if (isMissing || !response.ok) await response.body?.cancel();
  if (isMissing) return undefined;
  // The file ends before the piece.
  if (status === 416) return new Uint8Array(0);
  if (!response.ok) throw new Error(`${url.href}: the server answered ${status} ${response.statusText}`.trimEnd());
  const start = status === 206 ? rangeStart(response, url, begin) : 0;
  // What begins a file comes without anything before it.
  if (status !== 206 && begin > 0) rangeIgnored();
  try {
    return await collect(response, begin - start, end - start);
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Error(`${url.href}: what the server sends broke off`, { cause: error });
  }
}

async function request(url: URL, begin: number, end: number, signal: SignalLike | undefined): Promise<PieceResponse> {
  try {
    return (await fetch(url, { headers: { Range: `bytes=${begin}-${end - 1}` }, signal: signal as AbortSignal })) as PieceResponse;
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Error(`${url.href}: the server was not reached`, { cause: error });
  }
}

/** Servers of applications answer with their first page where there is no file. */
const isPage = ({ headers }: PieceResponse): boolean => /^text\/html\b/i.test(headers.get('content-type') ?? '');

/** Where what is sent begins. Servers of other origins may keep the header to themselves. */
function rangeStart({ headers }: PieceResponse, url: URL, begin: number): number {
  const range = headers.get('content-range');
  if (range === null) return begin;
  const start = /^bytes (\d+)-/.exec(range)?.[1];
  if (start === undefined || Number(start) > begin) throw new Error(`${url.href}: expected the bytes from ${begin} on, got ${JSON.stringify(range)}`);
  return Number(start);
}

/** Bytes `begin` to `end` − 1 of a body, which is not read beyond. */
async function collect({ body }: PieceResponse, begin: number, end: number): Promise<Uint8Array> {
  if (body === null) return new Uint8Array(0);
  const chunks: Uint8Array[] = [];
  const reader = body.getReader();
  let at = 0;
  try {
    while (at < end) {
      const { done, value } = await reader.read();
      if (done) break;
      chunks.push(value!.subarray(Math.max(0, begin - at), Math.max(0, end - at)));
      at += value!.length;
    }
  } finally {
    await reader.cancel();
  }
  return join(chunks);
}

/** Chunks one after the other. */
function join(chunks: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(chunks.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const chunk of chunks) {
    bytes.set(chunk, at);
    at += chunk.length;
  }
  return bytes;
}
