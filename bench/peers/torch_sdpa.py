#!/usr/bin/env python3
"""PyTorch's scaled_dot_product_attention on bf16, for the shapes of bench/gpu/shapes.ts, with the same columns as gpu-decode and gpu-prefill.

    python3 bench/peers/torch_sdpa.py [--small] [--rounds N] [--json FILE] [--markdown]

Needs PyTorch with CUDA, and nothing else. Keys and values lie in one piece, without pages: the easiest cache there is. Every
backend that takes a shape is measured, and what PyTorch chooses by itself. Times are CUDA events around so many runs that a
sample takes 50 ms; backends and a copy give samples in alternation. A copy reads and writes: both count.
"""
import argparse
import datetime
import json
import math
import statistics
import sys
from contextlib import nullcontext

try:
    import torch
    import torch.nn.functional as F
except ImportError:
    sys.exit('PyTorch is not installed: this peer needs it, with CUDA')

SEED = 2026
SAMPLE_MS = 50
COPY_BYTES = 2**30
BF16_BYTES = 2
# Largest deviation from PyTorch's own plain attention in f32, relative to the size of the result.
BOUND = 0.05

# (name, query heads, KV heads, head dim)
LLAMA3 = ('Llama-3-8B 32/8×128', 32, 8, 128)
LLAMA2 = ('Llama-2-7B 32/32×128', 32, 32, 128)
LLAMA3_LARGE = ('Llama-3-70B 64/8×128', 64, 8, 128)

# (shape, sequences, new tokens, keys)
DECODE = {
    'large': [(LLAMA3, 32, 1, 16384), (LLAMA3, 1, 1, 131072), (LLAMA2, 8, 1, 16384), (LLAMA3_LARGE, 32, 1, 16384)],
    'small': [(LLAMA3, 1, 1, 16384), (LLAMA3, 1, 1, 4096)],
}
PREFILL = {
    'large': [(LLAMA3, 1, 4096, 4096), (LLAMA3, 1, 1024, 1024)],
    'small': [(LLAMA3, 1, 256, 256)],
}


def sdpa_backends():
    """Contexts that leave SDPA one backend each; `default` leaves it the choice."""
    contexts = {'default': nullcontext}
    try:
        from torch.nn.attention import SDPBackend, sdpa_kernel
    except ImportError:
        return contexts
    for name, member in [('flash', 'FLASH_ATTENTION'), ('mem-efficient', 'EFFICIENT_ATTENTION'), ('cudnn', 'CUDNN_ATTENTION'), ('math', 'MATH')]:
        backend = getattr(SDPBackend, member, None)
        if backend is not None:
            contexts[name] = lambda backend=backend: sdpa_kernel(backend)
    return contexts


def attention(q, k, v, causal, grouped):
    if grouped:
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=True)
    return F.scaled_dot_product_attention(q, k, v, is_causal=causal)


def elapsed(run, repeats):
    """Milliseconds of so many runs on the GPU."""
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    for _ in range(repeats):
        run()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end)


class Racer:
    """Work with its number of runs per sample; `sample` gives milliseconds of one run."""

    def __init__(self, name, run):
        self.name, self.run, self.times = name, run, []
        run()
        torch.cuda.synchronize()
        # Three runs first: what is tried out or compiled on the way does not count.
        elapsed(run, 3)
        self.repeats = max(1, min(1000, math.ceil(SAMPLE_MS / max(elapsed(run, 3) / 3, 1e-3))))

    def sample(self):
        # One run goes before: it finds the caches full of what another left there.
        self.run()
        self.times.append(elapsed(self.run, self.repeats) / self.repeats)

    def median(self):
        return statistics.median(self.times)


def race(racers, rounds):
    for turn in range(rounds):
        for i in range(len(racers)):
            racers[(turn + i) % len(racers)].sample()


def copy_racer():
    source = torch.empty(COPY_BYTES, dtype=torch.uint8, device='cuda').fill_(1)
    target = torch.empty_like(source)
    return Racer('copy', lambda: target.copy_(source))


def off_by(out, q, k, v, causal):
    """How far the last row of the last sequence and head is from plain attention in f32; it sees all keys."""
    group = q.shape[1] // k.shape[1]
    head = q.shape[1] - 1
    row, keys, values = q[-1, head, -1].float(), k[-1, head // group].float(), v[-1, head // group].float()
    expected = torch.softmax(keys @ row / math.sqrt(row.numel()), 0) @ values
    return ((out[-1, head, -1].float() - expected).norm() / expected.norm()).item()


def try_racer(name, context, q, k, v, causal):
    """The backend with grouped heads; else with keys and values repeated for each query head; else why it has none."""
    group = q.shape[1] // k.shape[1]
    forms = [(name, k, v, group > 1)]
    problem = ''
    if group > 1:
        # As many bytes as heads of queries: what one does where a backend knows no groups.
        forms.append((f'{name}, K and V repeated', None, None, False))
    for label, keys, values, grouped in forms:
        try:
            if keys is None:
                keys, values = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)

            def run(keys=keys, values=values, grouped=grouped):
                with context():
                    return attention(q, keys, values, causal, grouped)

            deviation = off_by(run(), q, k, v, causal)
            if not deviation <= BOUND:
                raise SystemExit(f'{label} computes wrongly: off by {deviation:.3g}')
            return Racer(label, run), None
        except (RuntimeError, TypeError) as error:
            problem = str(error).strip().splitlines()[0]
            torch.cuda.empty_cache()
    return None, f'{name}: {problem}'


def flops(query_heads, head_dim, sequences, tokens, keys):
    """As bench/shapes.ts: multiply-adds of q · k and of p · v, two each, of the pairs that causality leaves."""
    past = keys - tokens
    return 4 * query_heads * head_dim * sequences * (tokens * past + tokens * (tokens + 1) / 2)


def measure(case, rounds):
    (name, query_heads, kv_heads, head_dim), sequences, tokens, keys = case
    causal = tokens > 1
    generator = torch.Generator(device='cuda').manual_seed(SEED)

    def normal(heads, length):
        return torch.randn(sequences, heads, length, head_dim, device='cuda', dtype=torch.bfloat16, generator=generator)

    q, k, v = normal(query_heads, tokens), normal(kv_heads, keys), normal(kv_heads, keys)
    racers, notes = [], []
    for backend, context in sdpa_backends().items():
        racer, problem = try_racer(backend, context, q, k, v, causal)
        if racer:
            racers.append(racer)
        else:
            notes.append(problem)
    copy = copy_racer()
    race([*racers, copy], rounds)
    copied = 2 * COPY_BYTES / copy.median() / 1e6
    read = 2 * sequences * keys * kv_heads * head_dim * BF16_BYTES
    operations = flops(query_heads, head_dim, sequences, tokens, keys)
    figures = []
    for racer in racers:
        ms = racer.median()
        values = {} if causal else {'GB/s': read / ms / 1e6, 'of copy, %': 100 * read / ms / 1e6 / copied}
        values.update({'TFLOP/s': operations / ms / 1e9, 'median, ms': ms, 'min, ms': min(racer.times), 'runs': rounds * racer.repeats})
        figures.append({'name': racer.name, 'values': values})
    figures.append({'name': 'copy', 'values': {'GB/s': copied, 'of copy, %': 100, 'median, ms': copy.median(), 'min, ms': min(copy.times), 'runs': rounds * copy.repeats}})
    return {'title': f'{name}, {sequences} × {tokens} on {keys} keys, bf16', 'figures': figures, 'notes': notes}


def digits(x):
    return f'{x:.0f}' if abs(x) >= 1000 else f'{x:.3g}'


def print_section(section, markdown):
    print(f"\n{'#### ' if markdown else ''}{section['title']}\n")
    names = list(dict.fromkeys(name for figure in section['figures'] for name in figure['values']))
    rows = [['', *names]] + [
        [figure['name'], *(digits(figure['values'][name]) if name in figure['values'] else '–' for name in names)] for figure in section['figures']
    ]
    if markdown:
        rows.insert(1, ['---', *('---:' for _ in names)])
        for row in rows:
            print(f"| {' | '.join(row)} |")
    else:
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        for row in rows:
            print('  ' + '  '.join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))]))
    for note in section['notes']:
        print(f'\nnot measured: {note}')


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--small', action='store_true', help='the small shapes')
    parser.add_argument('--rounds', type=int, default=21, help='samples of each (default 21)')
    parser.add_argument('--json', metavar='FILE', help='keeps the figures')
    parser.add_argument('--markdown', action='store_true')
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit(f'PyTorch {torch.__version__} finds no CUDA device here: this peer measures GPUs only')
    date = datetime.date.today().isoformat()
    machine = {'gpu': torch.cuda.get_device_name(), 'torch': torch.__version__, 'cuda': torch.version.cuda, 'python': sys.version.split()[0]}
    print(f"{date}, {machine['gpu']}, PyTorch {machine['torch']}, CUDA {machine['cuda']}, seed {SEED}")
    size = 'small' if options.small else 'large'
    reports = []
    with torch.inference_mode():
        for question, cases in [('PyTorch decode: one token of each sequence', DECODE[size]), ('PyTorch prefill: a prompt, causal', PREFILL[size])]:
            print(f"\n{'### ' if options.markdown else ''}{question}")
            sections = []
            for case in cases:
                sections.append(measure(case, options.rounds))
                print_section(sections[-1], options.markdown)
                torch.cuda.empty_cache()
            reports.append({'question': question, 'sections': sections})
    if options.json:
        with open(options.json, 'w', encoding='utf-8') as file:
            json.dump({'date': date, 'machine': machine, 'seed': SEED, 'reports': reports}, file, indent=2, ensure_ascii=False)
            file.write('\n')


if __name__ == '__main__':
    main()
