#include "data_gen/key_value_recall.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <unordered_map>
#include <utility>

#include "data_gen/combinatorics.h"
#include "lib/base/error.h"

namespace hax {
namespace {

constexpr double kNever = -std::numeric_limits<double>::infinity();

double log2_add(double a, double b) {
  const double high = std::max(a, b);
  return high == kNever ? kNever : high + std::log2(std::exp2(a - high) + std::exp2(b - high));
}

}  // namespace

KeyValueRecall::KeyValueRecall(const Options& options, std::vector<Shape> shapes, SizeSchedule schedule)
    : options_(options), shapes_(std::move(shapes)), schedule_(std::move(schedule)) {
  spec_.task = options.name;
  spec_.vocab_size = options.vocab_size;
  spec_.target_kind = TargetKind::label;
  spec_.slice_columns = options.slice_columns;
  spec_.slots = options.slots;
  spec_.chance = 1.0 / static_cast<double>(options.values);
  for (Shape& shape : shapes_) {
    shape.context_length = shape.entries * stride();
    for (int64_t g = 0; g < (shape.length - shape.context_length) / stride(); ++g) {
      shape.mean_wait.push_back(std::pow(static_cast<double>(g + 1), 1.0 - options.power_a));
      if (!std::isnormal(shape.mean_wait.back())) {
        throw UsageError("task." + options.name + ".power_a: is too far from 1 for a length of " +
                         std::to_string(shape.length));
      }
    }
    spec_.padded_tokens = std::max(spec_.padded_tokens, shape.length);
  }
}

std::string KeyValueRecall::size_name(int64_t size) const {
  std::string text;
  for (size_t i = 0; i < spec_.slice_columns.size(); ++i) {
    text += (i > 0 ? ", " : "") + spec_.slice_columns[i] + " " +
            std::to_string(shapes_.at(static_cast<size_t>(size)).slices[i]);
  }
  return text;
}

double KeyValueRecall::log2_distinct(int64_t size) const {
  const Shape& shape = shapes_.at(static_cast<size_t>(size));
  const int64_t slots = shape.slots();
  const double contexts = log2_contexts(shape);
  if (!options_.random_non_queries) return contexts + log2_falling(slots, shape.keys);
  // Tokens outside the keys' places in the slots are free. The slots spell any sequence of key-sized words in
  // which each key occurs: ways[m] counts those of the slots so far with m keys still to come.
  const double words = std::pow(static_cast<double>(options_.vocab_size), options_.key_width);
  std::vector<double> ways(static_cast<size_t>(shape.keys) + 1, kNever);
  ways[static_cast<size_t>(shape.keys)] = 0.0;
  for (int64_t slot = 0; slot < slots; ++slot) {
    for (int64_t missing = 0; missing <= shape.keys; ++missing) {
      const auto m = static_cast<size_t>(missing);
      const double stays = ways[m] + std::log2(words - static_cast<double>(missing));
      const double met =
          missing < shape.keys ? ways[m + 1] + std::log2(static_cast<double>(missing + 1)) : kNever;
      ways[m] = log2_add(stays, met);
    }
  }
  const int64_t free = shape.length - shape.context_length - slots * options_.key_width;
  return contexts + ways[0] + static_cast<double>(free) * std::log2(static_cast<double>(options_.vocab_size));
}

uint64_t KeyValueRecall::key_at(const std::vector<int32_t>& tokens, int64_t position) const {
  uint64_t key = 0;
  for (int64_t i = 0; i < options_.key_width; ++i) {
    key = key << 32 | static_cast<uint32_t>(tokens[static_cast<size_t>(position + i)]);
  }
  return key;
}

const KeyValueRecall::Shape* KeyValueRecall::shape_of(const Example& example) const {
  const auto found = std::find_if(shapes_.begin(), shapes_.end(),
                                  [&](const Shape& shape) { return shape.slices == example.slices; });
  return found == shapes_.end() ? nullptr : &*found;
}

void KeyValueRecall::example(RandomStream& random, int64_t index, Example& result) const {
  const Shape& shape = shapes_[static_cast<size_t>(size_at(index))];
  const auto keys = static_cast<size_t>(shape.keys);
  result.slices = shape.slices;
  result.tokens.assign(static_cast<size_t>(shape.length), 0);
  draw_context(random, shape, result.tokens.data());

  // The last value of each key, by its entry.
  std::vector<int32_t> values(keys);
  for (size_t i = 0; i < keys; ++i) {
    values[i] = result.tokens[static_cast<size_t>(static_cast<int64_t>(i) * stride() + options_.key_width)];
  }
  if (shape.entries > shape.keys) {
    std::unordered_map<uint64_t, size_t> entry;
    for (size_t i = 0; i < keys; ++i) entry[key_at(result.tokens, static_cast<int64_t>(i) * stride())] = i;
    for (int64_t i = shape.keys; i < shape.entries; ++i) {
      values[entry.at(key_at(result.tokens, i * stride()))] =
          result.tokens[static_cast<size_t>(i * stride() + options_.key_width)];
    }
  }

  // Exponential waiting times with the slots' weights as rates: the order of the first arrivals is that of
  // successive weighted draws without replacement, as Gumbel top-K is (-log of the waiting times).
  std::vector<std::pair<double, int32_t>> arrivals(shape.mean_wait.size());
  for (size_t g = 0; g < arrivals.size(); ++g) {
    arrivals[g] = {-std::log(random.uniform()) * shape.mean_wait[g], static_cast<int32_t>(g)};
  }
  std::partial_sort(arrivals.begin(), arrivals.begin() + shape.keys, arrivals.end());

  std::vector<std::pair<int32_t, int32_t>> labels(keys);  // position, value
  for (size_t i = 0; i < keys; ++i) {
    const int64_t slot = shape.context_length + arrivals[i].second * stride();
    const auto entry = static_cast<int64_t>(i) * stride();
    std::copy_n(result.tokens.begin() + entry, options_.key_width, result.tokens.begin() + slot);
    labels[i] = {static_cast<int32_t>(slot + options_.key_width - 1), values[i]};
  }
  std::sort(labels.begin(), labels.end());
  result.scored.resize(keys);
  result.targets.resize(keys);
  for (size_t i = 0; i < keys; ++i) {
    result.scored[i] = labels[i].first;
    result.targets[i] = labels[i].second;
  }
  if (options_.random_non_queries) {
    // No token of a context or a query is 0.
    for (int32_t& token : result.tokens) {
      if (token == 0) token = static_cast<int32_t>(random.below(static_cast<uint32_t>(options_.vocab_size)));
    }
  }
}

std::string KeyValueRecall::wrong(const std::vector<int32_t>& tokens, int64_t position,
                                  const std::string& wanted) {
  return "token " + std::to_string(tokens[static_cast<size_t>(position)]) + " at position " +
         std::to_string(position) + " should be " + wanted;
}

std::string KeyValueRecall::fault(const Example& example) const {
  const Shape* const shape = shape_of(example);
  if (shape == nullptr) return "the slices are those of no size of the task";
  const auto& tokens = example.tokens;
  if (static_cast<int64_t>(tokens.size()) != shape->length) {
    return std::to_string(tokens.size()) + " tokens instead of " + std::to_string(shape->length);
  }
  for (int64_t i = 0; i < shape->length; ++i) {
    const int64_t token = tokens[static_cast<size_t>(i)];
    if (token < 0 || token >= options_.vocab_size) return wrong(tokens, i, "inside the vocabulary");
  }
  if (std::string found = context_fault(tokens, *shape); !found.empty()) return found;

  if (static_cast<int64_t>(example.scored.size()) != shape->keys ||
      example.targets.size() != example.scored.size()) {
    return std::to_string(example.scored.size()) + " scored positions and " +
           std::to_string(example.targets.size()) + " targets instead of one for each of " +
           std::to_string(shape->keys) + " keys";
  }
  std::unordered_map<uint64_t, int32_t> value;  // of the keys not yet asked
  for (int64_t at = 0; at < shape->context_length; at += stride()) {
    value[key_at(tokens, at)] = tokens[static_cast<size_t>(at + options_.key_width)];
  }
  std::vector<bool> query(tokens.size());
  int32_t previous = -1;
  for (size_t i = 0; i < example.scored.size(); ++i) {
    const int32_t position = example.scored[i];
    const int64_t slot = position - options_.key_width + 1;
    if (position <= previous || slot < shape->context_length ||
        slot >= shape->context_length + shape->slots() * stride() ||
        (slot - shape->context_length) % stride() != 0) {
      return "scored position " + std::to_string(position) + " is no query slot, or out of order";
    }
    previous = position;
    const auto asked = value.find(key_at(tokens, slot));
    if (asked == value.end()) return wrong(tokens, position, "a key of the context, asked once");
    if (example.targets[i] != asked->second) {
      return "target " + std::to_string(example.targets[i]) + " at position " + std::to_string(position) +
             " is not the value of its key";
    }
    value.erase(asked);
    for (int64_t at = slot; at <= position; ++at) query[static_cast<size_t>(at)] = true;
  }
  if (!options_.random_non_queries) {
    for (int64_t i = shape->context_length; i < shape->length; ++i) {
      if (!query[static_cast<size_t>(i)] && tokens[static_cast<size_t>(i)] != 0) {
        return wrong(tokens, i, "0: it is no query");
      }
    }
  }
  return "";
}

std::vector<Role> KeyValueRecall::roles(const Example& example) const {
  std::vector<Role> result(example.tokens.size(), Role::filler);
  const Shape& shape = *shape_of(example);
  for (int64_t i = 0; i < shape.context_length; ++i) {
    result[static_cast<size_t>(i)] = i % stride() < options_.key_width ? Role::pair_key : Role::pair_value;
  }
  for (int32_t position : example.scored) {
    for (int64_t i = 0; i < options_.key_width; ++i) result[static_cast<size_t>(position - i)] = Role::query;
  }
  return result;
}

std::vector<int32_t> KeyValueRecall::sources(const Example& example) const {
  std::unordered_map<uint64_t, int32_t> last;  // position of the value that a key was given last
  const int64_t context = shape_of(example)->context_length;
  for (int64_t at = 0; at < context; at += stride()) {
    last[key_at(example.tokens, at)] = static_cast<int32_t>(at + options_.key_width);
  }
  std::vector<int32_t> result;
  for (int32_t position : example.scored) {
    const auto found = last.find(key_at(example.tokens, position - options_.key_width + 1));
    result.push_back(found == last.end() ? -1 : found->second);
  }
  return result;
}

std::vector<int32_t> KeyValueRecall::oracle(const Example& example) const {
  std::vector<int32_t> answers = sources(example);
  for (int32_t& answer : answers) {
    if (answer >= 0) answer = example.tokens[static_cast<size_t>(answer)];
  }
  return answers;
}

size_t KeyValueRecall::error_kind(const Example& example, size_t i, int32_t predicted) const {
  // Kinds are ordered by how many tokens of the key the nearest entry with this value shares, most first;
  // then come other values and what is no value.
  require_error(example, i, predicted);
  const size_t kinds = error_kinds().size();
  if (!is_value(predicted)) return kinds - 1;
  const int64_t context = shape_of(example)->context_length;
  int64_t nearest = -1;
  for (int64_t at = 0; at < context; at += stride()) {
    if (example.tokens[static_cast<size_t>(at + options_.key_width)] != predicted) continue;
    int64_t shared = 0;
    for (int64_t j = 0; j < options_.key_width; ++j) {
      const auto asked = static_cast<size_t>(example.scored[i] - options_.key_width + 1 + j);
      shared += example.tokens[static_cast<size_t>(at + j)] == example.tokens[asked] ? 1 : 0;
    }
    nearest = std::max(nearest, shared);
  }
  return kinds - 2 - static_cast<size_t>(nearest + 1);
}

}  // namespace hax
