/**
 * The reference of the API: `npm run docs` writes it to build/api/. What it is made of are the entry points that package.json
 * exports, and it fails on any warning: a symbol without a comment, a link that leads nowhere.
 */
import { readFileSync } from 'node:fs';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { Application, Logger, LogLevel, type ProjectReflection } from 'typedoc';

const root = new URL('..', import.meta.url);
const pathOf = (name: string): string => fileURLToPath(new URL(name, root));

/** Keeps what TypeDoc complains of. */
class Complaints extends Logger {
  readonly all: string[] = [];

  override log(message: string, level: LogLevel): void {
    // Fields of a type without a name are told of by the comment before it.
    if (level >= LogLevel.Warn && !/__type.* does not have any documentation/.test(message)) this.all.push(message);
  }
}

/** Types that are written out where they are used, since programs need no name for them. */
const unnamed = [
  'src/backend.ts:Awaitable',
  'src/checkpoint/names.ts:ScaleSide',
  'src/checkpoint/source.ts:BlobLike',
  'src/checkpoint/source.ts:Files',
  'src/checkpoint/source.ts:SignalLike',
  'src/checkpoint/source.ts:UrlLike',
  'src/checkpoint/write.ts:Json',
  'src/files/byte-stream.ts:ChunkStream',
  'src/huggingface.ts:Updated',
  'src/kv-scales.ts:givenGranularities',
  'src/layout.ts:KeyOrder',
  'src/ort/tensors.ts:OrtFloat',
  'src/transformers/index.ts:Dynamic',
  'src/wasm/codec.ts:Codes',
  'src/webgpu/variant.ts:MatrixShape',
];

/** The sources of what a program can import. */
export function entryPoints(): string[] {
  const { exports } = JSON.parse(readFileSync(pathOf('package.json'), 'utf8')) as { exports: Record<string, string | { default: string }> };
  const files = Object.values(exports).flatMap((entry) => (typeof entry === 'string' ? [] : [entry.default]));
  return files.map((file) => file.replace('./dist/', 'src/').replace(/\.js$/, '.ts'));
}

/** @returns the reference as data, and what is wrong with it */
export async function reference(): Promise<{ app: Application; project: ProjectReflection | undefined; complaints: readonly string[] }> {
  const app = await Application.bootstrap({
    entryPoints: entryPoints().map(pathOf),
    tsconfig: pathOf('tsconfig.build.json'),
    name: 'fp8-kv',
    readme: pathOf('README.md'),
    basePath: pathOf('.'),
    excludeInternal: true,
    excludePrivate: true,
    disableGit: true,
    disableSources: true,
    githubPages: false,
    validation: { notExported: true, invalidLink: true, invalidPath: true, rewrittenLink: true, notDocumented: true, unusedMergeModuleWith: true },
    intentionallyNotExported: unnamed,
  });
  const logger = new Complaints();
  app.logger = logger;
  const project = await app.convert();
  if (project) app.validate(project);
  return { app, project, complaints: logger.all };
}

async function write(): Promise<void> {
  const { app, project, complaints } = await reference();
  for (const complaint of complaints) console.error(complaint);
  if (!project || complaints.length > 0) process.exit(1);
  await app.generateDocs(project, pathOf('build/api'));
  console.log('build/api/index.html');
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) await write();
