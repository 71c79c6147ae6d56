"""The Python half of scripts/race_peers: times what it finds installed, then $HAX at the same shapes."""

import argparse
import importlib
import json
import os
import statistics
import subprocess
import sys

# batch x length: widths of the paper's models at d_model 64, or of d_model 768 at the last shape.
PAPER = dict(d_inner=128, d_state_scan=16, heads=8, head_dim=16, d_state_ssd=32, channels=192)
LARGE = dict(d_inner=1536, d_state_scan=16, heads=24, head_dim=64, d_state_ssd=128, channels=1536)
SHAPES = {
    "64x1057": (64, 1057, PAPER),
    "64x512": (64, 512, PAPER),
    "1x16384": (1, 16384, PAPER),
    "1x131072": (1, 131072, PAPER),
    "8x4096": (8, 4096, LARGE),
}
D_QK, D_V = 16, 128  # of attention, one head
CHUNKS = (64, 128, 256)  # of mamba_ssm's SSD
PASSES = ("forward", "forward+backward")


def say(text):
    print(f"scripts/race_peers: {text}", file=sys.stderr, flush=True)


def fail(text, remedy):
    say(text)
    print(f"  remedy: {remedy}", file=sys.stderr)
    sys.exit(1)


def find(module, races):
    """The module, or None after a line that names the races left out."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        say(f"{module.split('.')[0]} cannot be imported ({error}): no {races}")
        return None


class Peers:
    """Functions of others, as (name, forward, inputs) at a shape."""

    def __init__(self, torch):
        self.torch = torch
        self.scan = find("mamba_ssm.ops.selective_scan_interface", "selective scan")
        self.ssd = find("mamba_ssm.ops.triton.ssd_combined", "SSD")
        self.conv = find("causal_conv1d", "causal convolution")

    def normal(self, *sizes, mean=0.0, dtype=None):
        torch = self.torch
        x = torch.randn(*sizes, device="cuda") + mean
        return x.to(dtype or torch.bfloat16)

    def cases(self, batch, length, w):
        float32 = self.torch.float32
        if self.scan:
            d, n = w["d_inner"], w["d_state_scan"]
            inputs = [self.normal(batch, d, length), self.normal(batch, d, length, mean=-2.0),
                      -self.normal(d, n, dtype=float32).exp(), self.normal(batch, n, length),
                      self.normal(batch, n, length), self.normal(d, dtype=float32), self.normal(d, dtype=float32)]

            def scan(u, delta, A, B, C, D, bias):
                return self.scan.selective_scan_fn(u, delta, A, B, C, D, delta_bias=bias, delta_softplus=True)

            yield "scan", "mamba_ssm", scan, inputs
        if self.ssd:
            h, p, n = w["heads"], w["head_dim"], w["d_state_ssd"]
            inputs = [self.normal(batch, length, h, p), self.normal(batch, length, h, mean=-2.0),
                      -self.normal(h, dtype=float32).exp(), self.normal(batch, length, 1, n),
                      self.normal(batch, length, 1, n), self.normal(h, dtype=float32),
                      self.normal(h, dtype=float32)]
            for chunk in CHUNKS:
                def ssd(x, dt, A, B, C, D, bias, chunk=chunk):
                    return self.ssd.mamba_chunk_scan_combined(x, dt, A, B, C, chunk, D=D, dt_bias=bias,
                                                              dt_softplus=True)

                yield "ssd", f"mamba_ssm, chunk {chunk}", ssd, inputs
        if self.conv:
            channels = w["channels"]
            inputs = [self.normal(batch, channels, length), self.normal(channels, 4),
                      self.normal(channels)]

            def conv(x, weight, bias):
                return self.conv.causal_conv1d_fn(x, weight, bias, activation="silu")

            yield "conv", "causal_conv1d", conv, inputs
        if w is PAPER:
            from torch.nn.attention import SDPBackend, sdpa_kernel
            inputs = [self.normal(batch, 1, length, D_QK), self.normal(batch, 1, length, D_QK),
                      self.normal(batch, 1, length, D_V)]

            def attention(q, k, v):
                with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
                    return self.torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)

            yield "attention", "torch, cuDNN", attention, inputs


def graph_milliseconds(torch, work, repeat):
    """The median of replays; short work is captured several times over in one graph."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            work()
    stream.synchronize()

    def captured(times):
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            for _ in range(times):
                work()
        return graph

    def replay(graph):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        with torch.cuda.stream(stream):
            begin.record()
            graph.replay()
            end.record()
        end.synchronize()
        return begin.elapsed_time(end)

    graph = captured(1)
    replay(graph)
    times = max(1, min(32, round(1.0 / replay(graph))))
    if times > 1:
        del graph
        graph = captured(times)
    for _ in range(5):
        replay(graph)
    return statistics.median(replay(graph) for _ in range(repeat)) / times


def peer_milliseconds(torch, forward, inputs, backward, repeat):
    if not backward:
        def work():
            with torch.no_grad():
                forward(*inputs)
    else:
        leaves = [x.detach().requires_grad_(True) for x in inputs]
        upstream = torch.randn_like(forward(*leaves))

        def work():
            torch.autograd.grad(forward(*leaves), leaves, upstream)
    return graph_milliseconds(torch, work, repeat)


def hax_milliseconds(hax, op, batch, length, w, repeat):
    """{pass: milliseconds} of the fused kernel, without those that hax refuses."""
    flags = {
        "scan": ["--d-inner", w["d_inner"], "--d-state", w["d_state_scan"]],
        "ssd": ["--heads", w["heads"], "--head-dim", w["head_dim"], "--d-state", w["d_state_ssd"]],
        "conv": ["--channels", w["channels"]],
        "attention": ["--patterns", "full", "--d-qk", D_QK, "--d-v", D_V],
    }[op]
    command = [hax, "bench", op, "--device", "cuda", "--dtype", "bf16", "--fused-only", "--json", "--batch",
               batch, "--length", length, "--repeat", repeat, *flags]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode != 0:
        fail(f"{' '.join(str(word) for word in command)} failed: {done.stderr.strip()}",
             "try it by itself")
    rows = [row for row in json.loads(done.stdout)["rows"] if row["op"] not in ("copy", "product")]
    for row in rows:
        if row["note"]:
            say(f"hax bench {op} at {batch} x {length}, {row['pass']}: {row['note']}")
    return {row["pass"]: row["ms"] for row in rows if row["ms"] is not None}


def race(torch, peers, hax, name, repeat):
    """One row for each op and pass at a shape: the fastest of the peer's variants against hax."""
    batch, length, w = SHAPES[name]
    best = {}
    for op, peer, forward, inputs in peers.cases(batch, length, w):
        for which in PASSES:
            try:
                ms = peer_milliseconds(torch, forward, inputs, which == "forward+backward", repeat)
            except Exception as error:  # the peers' own: a shape refused, a compiler missing, memory
                say(f"{peer} at {name}, {which}: {type(error).__name__}: {str(error).splitlines()[0]}")
                continue
            if (op, which) not in best or ms < best[op, which][1]:
                best[op, which] = (peer, ms)
    torch.cuda.empty_cache()
    for op in dict.fromkeys(op for op, _ in best):
        ours = hax_milliseconds(hax, op, batch, length, w, repeat)
        for which in PASSES:
            if (op, which) in best and which in ours:
                peer, ms = best[op, which]
                yield {"op": op, "shape": name, "pass": which, "peer": peer, "peer ms": ms,
                       "hax ms": ours[which], "quotient": ms / ours[which]}


def table(rows):
    columns = list(rows[0])
    text = [[f"{row[c]:.4f}" if c.endswith("ms") else f"{row[c]:.2f}" if c == "quotient" else str(row[c])
             for c in columns] for row in rows]
    widths = [max(len(line[i]) for line in [columns, *text]) for i in range(len(columns))]
    for line in [columns, ["-" * width for width in widths], *text]:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())


def main():
    parser = argparse.ArgumentParser(prog="scripts/race_peers")
    parser.add_argument("--shapes", default=",".join(SHAPES))
    parser.add_argument("--repeat", type=int, default=30)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    names = arguments.shapes.split(",")
    for name in names:
        if name not in SHAPES:
            parser.error(f"--shapes: there is no {name!r}, but {', '.join(SHAPES)}")
    if arguments.repeat < 1:
        parser.error("--repeat: wanted a number of at least 1")
    try:
        import torch
    except ImportError as error:
        fail(f"{sys.executable} has no torch ({error})", "name a Python that has, with --python")
    if not torch.cuda.is_available():
        fail(f"torch {torch.__version__} of {sys.executable} finds no CUDA device",
             "run it on a machine with an NVIDIA GPU, with a torch built for CUDA")
    torch.manual_seed(1)
    say(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    peers = Peers(torch)
    rows = []
    for name in names:
        for row in race(torch, peers, os.environ["HAX"], name, arguments.repeat):
            rows.append(row)
            if arguments.json:
                print(json.dumps(row), flush=True)
    if not rows:
        fail("nothing could be raced", "see the lines above")
    if not arguments.json:
        table(rows)


main()
