#include "lib/train/guarded_steps.h"

#include <algorithm>
#include <cstdio>

#include "lib/base/error.h"

namespace hax {
namespace {

std::string in_units(int64_t bytes) {
  char text[32];
  const auto value = static_cast<double>(bytes);
  if (bytes >= int64_t{1} << 30) {
    std::snprintf(text, sizeof text, "%.2f GiB", value / (1 << 30));
  } else {
    std::snprintf(text, sizeof text, "%.1f MiB", value / (1 << 20));
  }
  return text;
}

std::string text_of(const BatchSize& batch) {
  return "a batch of " + std::to_string(batch.sequences) + " sequences, " + std::to_string(batch.tokens) +
         " tokens, the longest of " + std::to_string(batch.longest);
}

// The size in "Tried to allocate 12.00 GiB." or "you tried to allocate 123 bytes"; empty where there is none.
std::string wanted_size(const std::string& reason) {
  const std::string_view words = "ried to allocate ";
  const size_t at = reason.find(words);
  if (at == std::string::npos) return "";
  const size_t begin = at + words.size();
  const size_t number = reason.find(' ', begin);
  if (number == std::string::npos) return "";
  return reason.substr(begin, reason.find_first_of(" .,\n", number + 1) - begin);
}

bool is_out_of_memory(const c10::Error& error) {
  const std::string text = error.what_without_backtrace();
  return dynamic_cast<const c10::OutOfMemoryError*>(&error) != nullptr ||
         text.find("out of memory") != std::string::npos ||
         text.find("can't allocate memory") != std::string::npos;
}

class GuardedSteps : public StepQueue {
 public:
  GuardedSteps(std::unique_ptr<StepQueue> steps, at::Device device)
      : steps_(std::move(steps)), device_(device), before_(device_memory(device)) {}

  void push(const Batch& batch, int64_t step) override {
    const BatchSize size = {batch.size(), static_cast<int64_t>(batch.tokens.size()), batch.max_seqlen()};
    guarded(size, step, [&] { steps_->push(batch, step); });
    fitted_ = std::max(fitted_, size.tokens);
    last_ = size;
    last_step_ = step;
  }
  bool failed() const override { return steps_->failed(); }
  // Steps run behind the host's back: what fails here failed in the last one pushed, or shortly before it.
  std::vector<StepMetrics> drain() override {
    std::vector<StepMetrics> metrics;
    guarded(last_, last_step_, [&] { metrics = steps_->drain(); });
    return metrics;
  }

 private:
  template <class Call>
  void guarded(const BatchSize& size, int64_t step, Call call) const {
    const std::string where = "update " + std::to_string(step + 1) + ": ";
    try {
      call();
    } catch (const c10::Error& error) {
      const std::string reason = error.what_without_backtrace();
      if (is_out_of_memory(error)) {
        throw RuntimeError(where + memory_fault(size, before_, device_memory(device_), fitted_, reason));
      }
      throw RuntimeError(where + device_.str() + " failed in " + text_of(size) + ": " +
                         reason.substr(0, reason.find('\n')));
    } catch (const std::bad_alloc&) {
      throw RuntimeError(where + memory_fault(size, before_, device_memory(device_), fitted_, ""));
    } catch (const Error&) {
      throw;
    } catch (const std::runtime_error& error) {  // a launch that was refused names its kernel and shape
      throw RuntimeError(where + device_.str() + " failed in " + text_of(size) + ": " + error.what());
    }
  }

  std::unique_ptr<StepQueue> steps_;
  at::Device device_;
  std::optional<DeviceMemory> before_;
  int64_t fitted_ = 0;  // tokens of the largest batch that was run
  BatchSize last_;
  int64_t last_step_ = 0;
};

}  // namespace

std::string memory_fault(const BatchSize& batch, const std::optional<DeviceMemory>& before,
                         const std::optional<DeviceMemory>& now, int64_t fitted, const std::string& reason) {
  std::string text = "out of memory in " + text_of(batch);
  if (const std::string size = wanted_size(reason); !size.empty())
    text += "; the tensor that did not fit has " + size;
  if (before && now) {
    const int64_t room = now->total - before->held, used = now->most - before->held;
    text +=
        "; the GPU has " + in_units(now->total) + ", weights and optimiser take " + in_units(before->held);
    const int64_t tokens = fitted > 0 ? fitted : batch.tokens;
    if (tokens > 0 && used > 0) {
      const double bytes_a_token = static_cast<double>(used) / static_cast<double>(tokens);
      const auto fit = static_cast<int64_t>(static_cast<double>(room) / static_cast<double>(used) *
                                            static_cast<double>(tokens));
      const int64_t sequences = batch.tokens > 0 ? fit * batch.sequences / batch.tokens : 0;
      char measured[32];
      std::snprintf(measured, sizeof measured, "%.0f", bytes_a_token);
      text += ", a token " + std::string(fitted > 0 ? "" : "more than ") + measured + " bytes, so " +
              (fitted > 0 ? "about " : "fewer than ") + std::to_string(fit) + " tokens fit, " +
              std::to_string(sequences) + " sequences like these";
    }
  }
  return text + "; lower train.batch_size, the model's width or layers, or take a task of shorter sequences";
}

std::unique_ptr<StepQueue> guard_steps(std::unique_ptr<StepQueue> steps, at::Device device) {
  return std::make_unique<GuardedSteps>(std::move(steps), device);
}

}  // namespace hax
