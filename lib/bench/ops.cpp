#include "lib/bench/ops.h"

#include <optional>
#include <sstream>
#include <utility>

#include "lib/bench/varied.h"
#include "lib/ops/backward.h"
#include "lib/ops/fallback.h"

namespace hax {
namespace {

constexpr double kMega = 1e6, kGiga = 1e9, kMebi = 1024.0 * 1024.0;

using Tensors = std::vector<at::Tensor>;

struct PathResult {
  std::optional<Timing> timing;
  int64_t peak_bytes = 0;
  std::string note;  // why there is no time
};

std::string joined(const std::set<std::string>& texts) {
  std::string all;
  for (const auto& text : texts) all += (all.empty() ? "" : "; ") + text;
  return all;
}

// One pass of a case over one path.
std::function<void()> pass_of(const OpCase& c, bool backward, ops::Path path) {
  if (!backward) {
    return [&c, path] {
      const at::NoGradGuard no_grad;
      c.forward(c.inputs, path);
    };
  }
  Tensors leaves;
  for (const auto& input : c.inputs) leaves.push_back(input.detach().requires_grad_(true));
  return [&c, path, leaves] { ops::gradients(c.forward(leaves, path), leaves, c.upstream); };
}

PathResult time_path(const OpCase& c, bool backward, ops::Path path, at::Device device,
                     const TimingOptions& options) {
  PathResult result;
  try {
    const ops::FallbackWatch watch;
    const auto work = pass_of(c, backward, path);
    {
      const PeakMemory peak(device);
      work();
      result.peak_bytes = peak.bytes();
    }
    if (!watch.seen().empty()) {
      result.note = "no fused kernel: " + joined(watch.seen());
      return result;
    }
    result.timing = time_work(work, device, options);
  } catch (const c10::OutOfMemoryError&) {
    result.note = path == ops::Path::composite ? "composite: out of memory" : "out of memory";
  }
  return result;
}

struct TableRow {
  std::string op;
  Cell batch, length;
  std::string sizes;
  Cell tokens;
  std::string dtype, pass;
};

const std::vector<std::string> kColumns = {"op",        "batch",        "length",       "sizes",  "tokens",
                                           "dtype",     "pass",         "ms",           "p10 ms", "p90 ms",
                                           "runs",      "composite ms", "MB",           "GFLOP",  "copy %",
                                           "product %", "peak MB",      "composite MB", "note"};

void add_row(Table& table, const TableRow& row, const Work& work, const Ceilings& ceilings,
             const PathResult& fused, const PathResult& composite) {
  const auto milliseconds = [](const PathResult& result, double q) -> Cell {
    if (!result.timing) return std::monostate();
    return Number{result.timing->quantile(q), 4};
  };
  const auto peak = [](const PathResult& result) -> Cell {
    if (!result.timing) return std::monostate();
    return Number{static_cast<double>(result.peak_bytes) / kMebi, 1};
  };
  // Of the ceiling, in the median run.
  const auto share = [&](double amount, double ceiling) -> Cell {
    if (!fused.timing) return std::monostate();
    return Number{100.0 * amount / (1e-3 * fused.timing->quantile(0.5)) / ceiling, 1};
  };
  std::string note = fused.note;
  const auto add_note = [&](const std::string& text) { note += (note.empty() ? "" : "; ") + text; };
  if (!composite.note.empty()) add_note(composite.note);
  if (fused.timing && composite.timing && fused.timing->graph != composite.timing->graph)
    add_note("composite: timed call by call");
  table.rows.push_back({row.op, row.batch, row.length, row.sizes, row.tokens, row.dtype, row.pass,
                        milliseconds(fused, 0.5), milliseconds(fused, 0.1), milliseconds(fused, 0.9),
                        fused.timing ? Cell(static_cast<int64_t>(fused.timing->milliseconds.size())) : Cell(),
                        milliseconds(composite, 0.5), Number{work.bytes / kMega, 2},
                        Number{work.flops / kGiga, 3}, share(work.bytes, ceilings.bytes_per_second()),
                        share(work.flops, ceilings.flops_per_second()), peak(fused), peak(composite),
                        note.empty() ? Cell() : Cell(note)});
}

const char* short_name(at::ScalarType dtype) { return dtype == at::kBFloat16 ? "bf16" : "fp32"; }

}  // namespace

double Ceilings::bytes_per_second() const { return copied_bytes / (1e-3 * copy.quantile(0.5)); }
double Ceilings::flops_per_second() const { return product_flops / (1e-3 * product.quantile(0.5)); }

Ceilings measure_ceilings(at::Device device, const TimingOptions& options) {
  const at::NoGradGuard no_grad;
  const bool gpu = device.is_cuda();
  Ceilings ceilings;
  {
    const int64_t bytes = gpu ? int64_t{1} << 30 : int64_t{1} << 27;
    const at::Tensor from = varied({bytes / 4}, device);
    at::Tensor to = at::empty_like(from);
    ceilings.copied_bytes = 2.0 * static_cast<double>(bytes);
    ceilings.copy = time_work([&] { at::neg_out(to, from); }, device, options);
  }
  const int64_t n = gpu ? 8192 : 2048;
  const auto type = gpu ? at::kBFloat16 : at::kFloat;
  const at::Tensor a = varied({n, n}, device).to(type), b = a.t().contiguous();
  at::Tensor product = at::empty_like(a);
  const auto side = static_cast<double>(n);
  ceilings.product_flops = 2.0 * side * side * side;
  ceilings.product = time_work([&] { at::mm_out(product, a, b); }, device, options);
  return ceilings;
}

Table bench_ops(const OpBench& bench) {
  const Ceilings ceilings = measure_ceilings(bench.device, bench.timing);
  Table table;
  table.caption = "Kernels on " + std::string(bench.device.is_cuda() ? "cuda" : "cpu") + ", " +
                  std::to_string(at::get_num_threads()) + " threads";
  table.columns = kColumns;
  const bool gpu = bench.device.is_cuda();
  add_row(table, {"copy", {}, {}, gpu ? "1 GiB" : "128 MiB", {}, "fp32", "forward"},
          {ceilings.copied_bytes, 0.0}, ceilings, PathResult{ceilings.copy, 0, ""}, {});
  add_row(table, {"product", {}, {}, gpu ? "8192^3" : "2048^3", {}, gpu ? "bf16" : "fp32", "forward"},
          {0.0, ceilings.product_flops}, ceilings, PathResult{ceilings.product, 0, ""}, {});
  for (const SequenceShape& sequences : bench.sequences) {
    for (const OpCase& c :
         op_cases(bench.op, sequences, bench.sizes, bench.dtype, bench.device, bench.seed)) {
      for (const bool backward : {false, true}) {
        if (backward && !c.upstream.defined()) continue;
        const auto time = [&](ops::Path path) {
          return time_path(c, backward, path, bench.device, bench.timing);
        };
        const PathResult fused = time(ops::Path::automatic);
        const PathResult composite = bench.composite ? time(ops::Path::composite) : PathResult{};
        add_row(table,
                {c.op, sequences.batch, sequences.length, c.sizes, c.tokens, short_name(bench.dtype),
                 backward ? "forward+backward" : "forward"},
                backward ? c.work.both : c.work.forward, ceilings, fused, composite);
      }
    }
  }
  std::ostringstream about;
  about.precision(4);
  about << "ceilings: copy " << ceilings.bytes_per_second() / kGiga << " GB/s, product "
        << ceilings.flops_per_second() / (kGiga * 1e3) << " TFLOP/s";
  table.notes = {
      about.str(),
      "ms: median of the fused kernel's runs; MB and GFLOP: what the op has to move and compute at the "
      "least; copy % and product %: of the ceilings; peak MB: tensors made by one run"};
  return table;
}

}  // namespace hax
