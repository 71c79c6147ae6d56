// The three implementations of the SSD scan; the CPU kernel itself is lib/ops/cpu/ssd.h.
#include "lib/ops/ssd.h"

#include <cmath>
#include <sstream>
#include <stdexcept>

#include "lib/ops/autograd.h"
#include "lib/ops/cpu/ssd.h"
#include "lib/ops/cuda_paths.h"
#include "lib/ops/dispatch.h"

namespace hax::ops {
namespace {

struct Sizes {
  int64_t T, H, P, G, N;
};

Sizes checked_sizes(const SsdInputs& in, int64_t tokens) {
  const auto fail = [](const char* name, const at::Tensor& tensor, const char* wanted) {
    std::ostringstream message;
    message << "ssd: " << name << " is " << tensor.sizes() << ", wanted " << wanted;
    throw std::invalid_argument(message.str());
  };
  if (in.x.dim() != 3 || in.x.size(0) != tokens) fail("x", in.x, "(T, H, P)");
  if (in.B.dim() != 3 || in.B.size(0) != tokens) fail("B", in.B, "(T, G, N)");
  const Sizes s{in.x.size(0), in.x.size(1), in.x.size(2), in.B.size(1), in.B.size(2)};
  if (s.G < 1 || s.H % s.G != 0) fail("B", in.B, "a number of groups that divides the heads");
  if (in.C.sizes() != in.B.sizes()) fail("C", in.C, "the shape of B");
  if (in.dt.sizes() != at::IntArrayRef({s.T, s.H})) fail("dt", in.dt, "(T, H)");
  for (const auto* per_head : {&in.A, &in.D, &in.dt_bias}) {
    if (per_head->sizes() != at::IntArrayRef({s.H})) fail("A, D or dt_bias", *per_head, "(H)");
  }
  return s;
}

SsdInputs converted(const SsdInputs& in, at::ScalarType type) {
  return {in.x.to(type), in.dt.to(type), in.A.to(type),      in.B.to(type),
          in.C.to(type), in.D.to(type),  in.dt_bias.to(type)};
}

at::Tensor by_head(const at::Tensor& B_or_C, const Sizes& s) {
  return B_or_C.repeat_interleave(s.H / s.G, 1);
}

// The recurrence as it is written, for token t; dt after softplus, B and C (T, H, N).
struct Step {
  at::Tensor S, y;  // (H, P, N), (H, P)
};
Step advance(const SsdInputs& in, const at::Tensor& dt, const at::Tensor& B, const at::Tensor& C, int64_t t,
             const at::Tensor& S) {
  const at::Tensor decay = (dt[t] * in.A).exp().view({-1, 1, 1});
  const at::Tensor dtx = dt[t].unsqueeze(1) * in.x[t];
  const at::Tensor next = decay * S + dtx.unsqueeze(2) * B[t].unsqueeze(1);
  return {next, (next * C[t].unsqueeze(1)).sum(2) + in.D.unsqueeze(1) * in.x[t]};
}

// Token by token.
at::Tensor reference(const SsdInputs& given, const PackedLayout& layout) {
  const Sizes s = checked_sizes(given, layout.total());
  const SsdInputs in = converted(given, compute_type(given.x));
  const at::Tensor dt = at::softplus(in.dt + in.dt_bias);
  const at::Tensor B = by_head(in.B, s), C = by_head(in.C, s);
  std::vector<at::Tensor> y;
  for (int64_t b = 0; b < layout.batch(); ++b) {
    at::Tensor S = at::zeros({s.H, s.P, s.N}, in.x.options());
    for (int64_t t = layout.offsets[b]; t < layout.offsets[b + 1]; ++t) {
      const Step step = advance(in, dt, B, C, t, S);
      S = step.S;
      y.push_back(step.y);
    }
  }
  return at::stack(y).to(given.x.scalar_type());
}

// Chunks combined at once; longer runs of chunks are cut into pieces of this many.
constexpr int64_t kChunksTogether = 32;

// states (B, n, H, M): what each of n chunks adds; log_decay (B, n, H): its whole decay. Returns
// before (B, n, H, M), the state at each chunk's beginning, and last (B, H, M), the state after the last:
//   before_c = sum over c' < c of exp(sum over c' < k < c of log_decay_k) states_c'.
struct ChunkStates {
  at::Tensor before, last;
};
ChunkStates combine_chunks(const at::Tensor& states, const at::Tensor& log_decay) {
  const int64_t B = states.size(0), n = states.size(1), H = states.size(2), M = states.size(3);
  if (n <= kChunksTogether) {
    // sum_(c, c') runs from c' + 1 to c - 1; a cumulative sum after masking loses nothing to differences.
    const at::Tensor steps = log_decay.transpose(1, 2);  // (B, H, n)
    const auto mask = [&](int64_t diagonal) {
      return at::ones({n + 1, n}, states.options().dtype(at::kBool)).tril(diagonal);
    };
    // Row c holds log_decay_(c - 1) in the columns c' < c - 1.
    const at::Tensor shifted = at::constant_pad_nd(steps, {1, 0}).unsqueeze(3).expand({B, H, n + 1, n});
    const at::Tensor sums = shifted.masked_fill(~mask(-2), 0).cumsum(2);
    const at::Tensor weights = sums.masked_fill(~mask(-1), -INFINITY).exp();  // (B, H, n + 1, n)
    const at::Tensor all = at::matmul(weights, states.transpose(1, 2));       // (B, H, n + 1, M)
    return {all.narrow(2, 0, n).transpose(1, 2), all.select(2, n)};
  }
  const int64_t pieces = (n + kChunksTogether - 1) / kChunksTogether, missing = pieces * kChunksTogether - n;
  // Chunks that add nothing and decay nothing.
  const auto cut = [&](const at::Tensor& x, at::IntArrayRef rest) {
    std::vector<int64_t> pad(2 * (x.dim() - 2), 0);
    pad.insert(pad.end(), {0, missing});
    std::vector<int64_t> sizes{B * pieces, kChunksTogether};
    sizes.insert(sizes.end(), rest.begin(), rest.end());
    return at::constant_pad_nd(x, pad).reshape(sizes);
  };
  const at::Tensor piece_decay = cut(log_decay, {H});
  const ChunkStates inside = combine_chunks(cut(states, {H, M}), piece_decay);
  const ChunkStates outside =
      combine_chunks(inside.last.view({B, pieces, H, M}), piece_decay.sum(1).view({B, pieces, H}));
  // exp of the decay from the piece's beginning to each chunk of it.
  const at::Tensor earlier = at::constant_pad_nd(piece_decay, {0, 0, 1, 0}).narrow(1, 0, kChunksTogether);
  const at::Tensor reached = earlier.cumsum(1).exp().unsqueeze(3);
  const at::Tensor before = inside.before + reached * outside.before.reshape({B * pieces, 1, H, M});
  return {before.reshape({B, pieces * kChunksTogether, H, M}).narrow(1, 0, n), outside.last};
}

struct ScanResult {
  at::Tensor y;            // (T, H, P)
  at::Tensor final_state;  // (B, H, P, N)
};

// Chunks of Q tokens (Dao and Gu 2024, section 6): a masked product inside each, the states between them.
ScanResult composite(const SsdInputs& given, const PackedLayout& layout, int64_t Q) {
  const Sizes s = checked_sizes(given, layout.total());
  if (Q < 1) throw std::invalid_argument("ssd: chunk_size is " + std::to_string(Q) + ", wanted 1 or more");
  const auto type = compute_type(given.x);
  const SsdInputs in = converted(given, type);
  const int64_t batch = layout.batch(), H = s.H, P = s.P, G = s.G, N = s.N, R = H / G;
  Q = std::min(Q, layout.max_seqlen);
  const int64_t n = (layout.max_seqlen + Q - 1) / Q, missing = n * Q - layout.max_seqlen;
  // (T, K, M) -> (B, n, K, Q, M). Padding has dt 0: it neither decays the state nor adds to it.
  const auto chunks = [&](const at::Tensor& packed) {
    at::Tensor padded = to_padded(packed, layout);
    if (missing > 0) padded = at::constant_pad_nd(padded, {0, 0, 0, 0, 0, missing});
    return padded.view({batch, n, Q, packed.size(1), packed.size(2)}).transpose(2, 3);
  };
  const at::Tensor dt = at::softplus(in.dt + in.dt_bias);  // (T, H)
  const at::Tensor dtx = chunks(dt.unsqueeze(2) * in.x);   // (B, n, H, Q, P)
  const at::Tensor B = chunks(in.B), C = chunks(in.C);     // (B, n, G, Q, N)

  // Differences of cumulative sums lose digits, so for fp32 they are taken in fp64.
  const bool exact = given.x.scalar_type() == at::kFloat || type == at::kDouble;
  const at::Tensor steps = chunks((dt * in.A).unsqueeze(2)).squeeze(4).to(exact ? at::kDouble : at::kFloat);
  const at::Tensor reached = steps.cumsum(3);  // (B, n, H, Q): log e
  const at::Tensor total = reached.select(3, Q - 1);
  const at::Tensor above = at::ones({Q, Q}, in.x.options().dtype(at::kBool)).triu(1);
  // Masked before exp: above the diagonal the difference is positive and may overflow.
  const at::Tensor L =
      (reached.unsqueeze(4) - reached.unsqueeze(3)).to(type).masked_fill(above, -INFINITY).exp();
  const at::Tensor from_start = reached.to(type).exp();                     // (B, n, H, Q)
  const at::Tensor to_end = (total.unsqueeze(3) - reached).to(type).exp();  // (B, n, H, Q)

  const auto by_group = [&](const at::Tensor& x) {
    return x.reshape({batch, n, G, R, x.size(3), x.size(4)});
  };
  const at::Tensor CB = at::matmul(C, B.transpose(3, 4)).unsqueeze(3);    // (B, n, G, 1, Q, Q)
  const at::Tensor inside = at::matmul(CB * by_group(L), by_group(dtx));  // (B, n, G, R, Q, P)
  const at::Tensor weighted = by_group(dtx * to_end.unsqueeze(4));
  // (B, n, G, R, P, N), the heads of a group against its B.
  const at::Tensor added = at::matmul(weighted.transpose(4, 5), B.unsqueeze(3));
  const ChunkStates states = combine_chunks(added.reshape({batch, n, H, P * N}), total.to(type));
  const at::Tensor before = states.before.reshape({batch, n, G, R, P, N});
  const at::Tensor carried =
      at::matmul(C.unsqueeze(3), before.transpose(4, 5)) * by_group(from_start.unsqueeze(4));

  const at::Tensor padded =
      (inside + carried).reshape({batch, n, H, Q, P}).transpose(2, 3).reshape({batch, n * Q, H, P});
  const at::Tensor y = to_packed(padded.narrow(1, 0, layout.max_seqlen), layout) + in.D.unsqueeze(1) * in.x;
  return {y.to(given.x.scalar_type()), states.last.reshape({batch, H, P, N})};
}

// ssd by the CPU kernel. Rows of x, dt, B and C may be slices of wider rows.
class CpuSsd : public torch::autograd::Function<CpuSsd> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& x, const at::Tensor& dt,
                            const at::Tensor& A, const at::Tensor& B, const at::Tensor& C,
                            const at::Tensor& D, const at::Tensor& dt_bias, const PackedLayout& layout,
                            bool keep) {
    const int64_t H = x.size(1), P = x.size(2), G = B.size(1), N = B.size(2);
    const at::Tensor x_rows = as_rows(x), dt_rows = as_rows(dt), B_rows = as_rows(B), C_rows = as_rows(C);
    const at::Tensor heads = at::stack({A, D, dt_bias});
    const cpu::SsdPlan plan(layout.offsets.data(), layout.batch(), H, P, G, N);
    const cpu::SsdInput in = kernel_input(x_rows, dt_rows, B_rows, C_rows, heads);
    at::Tensor y = at::empty({x.size(0), H, P}, x.options());
    at::Tensor states = at::empty({keep ? plan.state_floats() : 0}, x.options());
    float* y_data = y.data_ptr<float>();
    float* state_data = keep ? states.data_ptr<float>() : nullptr;
    at::parallel_for(0, plan.tasks(), 1, [&](int64_t begin, int64_t end) {
      cpu::ssd_forward(plan, in, y_data, state_data, begin, end);
    });
    if (keep) {
      ctx->save_for_backward({x_rows, dt_rows, B_rows, C_rows, heads, states});
      ctx->saved_data["offsets"] = layout.offsets;
      ctx->saved_data["sizes"] = std::vector<int64_t>{H, P, G, N};
    }
    return y;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list gradients) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &dt = saved[1], &B = saved[2], &C = saved[3], &heads = saved[4];
    const auto offsets = ctx->saved_data["offsets"].toIntVector();
    const auto sizes = ctx->saved_data["sizes"].toIntVector();
    const int64_t T = x.size(0), H = sizes[0], P = sizes[1], G = sizes[2], N = sizes[3];
    const auto batch = static_cast<int64_t>(offsets.size()) - 1;
    const cpu::SsdPlan plan(offsets.data(), batch, H, P, G, N);
    const cpu::SsdInput in = kernel_input(x, dt, B, C, heads);
    const at::Tensor dy = as_rows(gradients[0]);
    const int64_t blocks = plan.blocks_per_group();
    at::Tensor dx = at::empty({T, H, P}, x.options()), ddt = at::empty({T, H}, x.options());
    const at::Tensor dB = at::empty({blocks, T, G, N}, x.options()), dC = at::empty_like(dB);
    const at::Tensor per_head = at::empty({3, batch, H}, x.options());
    float* per_head_data = per_head.data_ptr<float>();
    const cpu::SsdGradient out{dx.data_ptr<float>(),         ddt.data_ptr<float>(), dB.data_ptr<float>(),
                               dC.data_ptr<float>(),         per_head_data,         per_head_data + batch * H,
                               per_head_data + 2 * batch * H};
    at::parallel_for(0, plan.tasks(), 1, [&](int64_t begin, int64_t end) {
      cpu::ssd_backward(plan, in, saved[5].const_data_ptr<float>(), const_rows(dy), out, begin, end);
    });
    return {dx,
            ddt,
            sum_of_parts(per_head[0]),
            sum_of_parts(dB),
            sum_of_parts(dC),
            sum_of_parts(per_head[1]),
            sum_of_parts(per_head[2]),
            at::Tensor(),
            at::Tensor()};
  }

 private:
  static cpu::SsdInput kernel_input(const at::Tensor& x, const at::Tensor& dt, const at::Tensor& B,
                                    const at::Tensor& C, const at::Tensor& heads) {
    const float* per_head = heads.const_data_ptr<float>();
    const int64_t H = heads.size(1);
    return {const_rows(x), const_rows(dt), const_rows(B),   const_rows(C),
            per_head,      per_head + H,   per_head + 2 * H};
  }
};

}  // namespace

at::Tensor ssd(const SsdInputs& in, const PackedLayout& layout, int64_t chunk_size, Path path) {
  if (path == Path::reference) return reference(in, layout);
  checked_sizes(in, layout.total());
#ifdef HAX_CUDA
  if (use_cuda_kernel("ssd", path, in.x, [&] { return ssd_cuda_refusal(in.x, in.B); }))
    return ssd_cuda(in, layout);
#endif
  if (!use_cpu_kernel("ssd", path, in.x)) return composite(in, layout, chunk_size).y;
  const SsdInputs f = converted(in, at::kFloat);
  return CpuSsd::apply(f.x, f.dt, f.A, f.B, f.C, f.D, f.dt_bias, layout,
                       wants_gradient({f.x, f.dt, f.A, f.B, f.C, f.D, f.dt_bias}));
}

at::Tensor ssd_step(const SsdInputs& given, at::Tensor& state) {
  const at::NoGradGuard no_grad;
  const Sizes s = checked_sizes(given, 1);
  if (state.sizes() != at::IntArrayRef({s.H, s.P, s.N})) {
    std::ostringstream message;
    message << "ssd_step: state is " << state.sizes() << ", wanted (H, P, N)";
    throw std::invalid_argument(message.str());
  }
  const SsdInputs in = converted(given, state.scalar_type());
  const Step step =
      advance(in, at::softplus(in.dt + in.dt_bias), by_head(in.B, s), by_head(in.C, s), 0, state);
  state = step.S;
  return step.y.unsqueeze(0).to(given.x.scalar_type());
}

at::Tensor ssd_final_state(const SsdInputs& in, const PackedLayout& layout) {
  at::NoGradGuard no_grad;
  return composite(in, layout, 64).final_state;
}

}  // namespace hax::ops
