#include "lib/bench/products.h"

#include <ATen/record_function.h>

#include <mutex>
#include <string_view>

#include "lib/bench/varied.h"

namespace hax {
namespace {

struct Operand {
  std::vector<int64_t> sizes, strides;
  at::TensorOptions options;

  explicit Operand(const at::Tensor& x)
      : sizes(x.sizes().vec()), strides(x.strides().vec()), options(x.options()) {}
  at::Tensor make() const {
    std::vector<int64_t> stored = sizes;  // a broadcast dimension holds one
    for (size_t i = 0; i < sizes.size(); ++i) stored[i] = strides[i] == 0 ? 1 : sizes[i];
    at::Tensor values = at::empty_strided(stored, strides, options);
    values.copy_(varied(stored, options.device()));
    return values.expand(sizes);
  }
};

struct Product {
  Operand a, b;
  double flops() const {
    double flops = 2.0 * static_cast<double>(b.sizes.back());
    for (const int64_t size : a.sizes) flops *= static_cast<double>(size);
    return flops;
  }
};

struct Recorder {
  std::mutex mutex;
  std::vector<Product> products;
};
Recorder* recorder = nullptr;  // of the recording that runs

// The factors stand first, behind the summand of addmm and baddbmm.
std::unique_ptr<at::ObserverContext> note(const at::RecordFunction& call) {
  const std::string_view name = call.name();
  const bool plain = name == "aten::mm" || name == "aten::bmm";
  if (!plain && name != "aten::addmm" && name != "aten::baddbmm") return nullptr;
  const auto inputs = call.inputs();
  const size_t first = plain ? 0 : 1;
  const std::lock_guard lock(recorder->mutex);
  recorder->products.push_back({Operand(inputs[first].toTensor()), Operand(inputs[first + 1].toTensor())});
  return nullptr;
}

std::vector<Product> products_of(const std::function<void()>& work) {
  Recorder found;
  recorder = &found;
  const auto handle = at::addGlobalCallback(
      at::RecordFunctionCallback(note).needsInputs(true).scopes({at::RecordScope::FUNCTION}));
  try {
    work();
  } catch (...) {
    at::removeCallback(handle);
    throw;
  }
  at::removeCallback(handle);
  return std::move(found.products);
}

}  // namespace

Products time_products(const std::function<void()>& work, at::Device device, const TimingOptions& options) {
  const std::vector<Product> products = products_of(work);
  const at::NoGradGuard no_grad;
  Products result;
  std::vector<std::pair<at::Tensor, at::Tensor>> operands;
  for (const Product& product : products) {
    operands.emplace_back(product.a.make(), product.b.make());
    result.flops += product.flops();
  }
  result.count = static_cast<int64_t>(products.size());
  result.milliseconds = time_work(
                            [&] {
                              for (const auto& [a, b] : operands) at::matmul(a, b);
                            },
                            device, options)
                            .quantile(0.5);
  return result;
}

}  // namespace hax
