// A recall task: the rules by which examples are drawn, checked, solved and shown.
//
// Everything here is a pure function of the task's parameters and a random stream. Nothing outside
// data_gen knows these rules: training sees files or a stream of examples.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/random.h"
#include "lib/data/example.h"

namespace hax {

// What a token is doing at its position.
enum class Role : uint8_t {
  bos,
  context,  // joint recall, first half: opens the block of a context, at any level
  key,      // joint recall, first half
  value,    // joint recall, first half
  separator,
  query_context,  // joint recall, second half: the context asked about
  query_key,      // joint recall, second half: scored
  answer,         // joint recall, second half: the value, given after the question
  pair_key,       // MQAR: a token of a key of the context
  pair_value,     // MQAR: its value
  query,          // MQAR: a token of a key asked again, the last one scored
  filler,         // a token without meaning
  data,           // selective copying: a token to copy; induction heads: the token behind the special one
  special,        // induction heads: the special token; scored at the end
};
std::string_view role_name(Role role);  // "query key"

class Task {
 public:
  virtual ~Task() = default;

  virtual const DataSpec& spec() const = 0;
  // The parameters as canonical JSON (sorted keys, no spaces): what a manifest records.
  virtual std::string parameters() const = 0;

  // Sizes take turns: example `index` has size_at(index), and count_at(size, n) of the first n examples have
  // `size`. Round-robin unless the task says otherwise.
  virtual int64_t sizes() const = 0;
  virtual int64_t size_at(int64_t index) const { return index % sizes(); }
  virtual int64_t count_at(int64_t size, int64_t n) const {
    return n / sizes() + (size < n % sizes() ? 1 : 0);
  }
  virtual std::string size_name(int64_t size) const = 0;  // "n_context 5, n_key 7"
  // log2 of how many distinct token sequences examples of this size can be.
  virtual double log2_distinct(int64_t size) const = 0;

  // Draws example `index` from the stream; overwrites every field of `result`.
  virtual void example(RandomStream& random, int64_t index, Example& result) const = 0;

  // Empty when the example is one that this task can draw; else its first fault, naming the position.
  virtual std::string fault(const Example& example) const = 0;
  virtual std::vector<Role> roles(const Example& example) const = 0;  // one a token; the example has no fault
  virtual std::string symbol(int32_t token, Role role) const = 0;     // "c3", "k12", "v5", "BOS"
  // The right answers, from tokens before each scored position alone. (scored)
  virtual std::vector<int32_t> oracle(const Example& example) const = 0;
  // The earlier position of the token that holds each answer, -1 where no token does: the distance from
  // question to answer is scored position - source. The example has no fault. (scored)
  virtual std::vector<int32_t> sources(const Example& example) const = 0;

  // What a wrong prediction can be, nearest to right first: where several kinds hold, the first counts.
  virtual std::vector<std::string> error_kinds() const = 0;
  // The kind of predicting `predicted` at scored position i, an index into error_kinds(). The example has no
  // fault. Throws std::invalid_argument when `predicted` is the right answer or there is no such position.
  virtual size_t error_kind(const Example& example, size_t i, int32_t predicted) const = 0;

 protected:
  static void require_error(const Example& example, size_t i, int32_t predicted);
};

}  // namespace hax
