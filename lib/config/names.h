// The names of the enumerations, as they stand in YAML files, tables and messages: one table an enum,
// read both ways.
#pragma once

#include <cstddef>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>

#include "lib/config/config.h"

namespace hax {

template <class E>
struct EnumName {
  E value;
  std::string_view name;
};

// The table of an enum; an enum without one does not compile.
template <class E>
inline constexpr std::nullptr_t enum_names = nullptr;

template <>
inline constexpr EnumName<TaskKind> enum_names<TaskKind>[] = {
    {TaskKind::joint_recall, "joint_recall"},
    {TaskKind::multilevel_joint_recall, "multilevel_joint_recall"},
    {TaskKind::noisy_joint_recall, "noisy_joint_recall"},
    {TaskKind::mqar, "mqar"},
    {TaskKind::mqar_compositional, "mqar_compositional"},
    {TaskKind::mqar_forgetting, "mqar_forgetting"},
    {TaskKind::induction_heads, "induction_heads"},
    {TaskKind::selective_copying, "selective_copying"}};
template <>
inline constexpr EnumName<DataSource> enum_names<DataSource>[] = {{DataSource::file, "file"},
                                                                  {DataSource::stream, "stream"}};
template <>
inline constexpr EnumName<MixerKind> enum_names<MixerKind>[] = {{MixerKind::mamba, "mamba"},
                                                                {MixerKind::mamba2, "mamba2"},
                                                                {MixerKind::attention, "attention"},
                                                                {MixerKind::constructive, "constructive"}};
template <>
inline constexpr EnumName<PatternKind> enum_names<PatternKind>[] = {
    {PatternKind::full, "full"}, {PatternKind::sliding_window, "sliding_window"},
    {PatternKind::sink, "sink"}, {PatternKind::dilated, "dilated"},
    {PatternKind::lsh, "lsh"},   {PatternKind::key_selection, "key_selection"}};
template <>
inline constexpr EnumName<Statistics> enum_names<Statistics>[] = {{Statistics::causal, "causal"},
                                                                  {Statistics::paper, "paper"}};
template <>
inline constexpr EnumName<Centring> enum_names<Centring>[] = {{Centring::running_mean, "running_mean"},
                                                              {Centring::none, "none"}};
template <>
inline constexpr EnumName<HashRule> enum_names<HashRule>[] = {{HashRule::sign, "sign"},
                                                              {HashRule::argmax, "argmax"}};
template <>
inline constexpr EnumName<Schedule> enum_names<Schedule>[] = {{Schedule::constant, "constant"},
                                                              {Schedule::cosine, "cosine"}};
template <>
inline constexpr EnumName<Precision> enum_names<Precision>[] = {
    {Precision::fp32, "fp32"}, {Precision::bf16, "bf16"}, {Precision::pure_bf16, "pure_bf16"}};
template <>
inline constexpr EnumName<DeviceKind> enum_names<DeviceKind>[] = {
    {DeviceKind::automatic, "auto"}, {DeviceKind::cpu, "cpu"}, {DeviceKind::cuda, "cuda"}};
template <>
inline constexpr EnumName<OnDivergence> enum_names<OnDivergence>[] = {{OnDivergence::stop, "stop"},
                                                                      {OnDivergence::rewind, "rewind"}};
template <>
inline constexpr EnumName<OnSaveError> enum_names<OnSaveError>[] = {{OnSaveError::stop, "stop"},
                                                                    {OnSaveError::carry_on, "continue"}};

template <class E>
std::string_view name_of(E value) {
  for (const auto& entry : enum_names<E>) {
    if (entry.value == value) return entry.name;
  }
  throw std::invalid_argument("name_of: no name for enumerator " + std::to_string(static_cast<int>(value)));
}

template <class E>
std::optional<E> value_of(std::string_view name) {
  for (const auto& entry : enum_names<E>) {
    if (entry.name == name) return entry.value;
  }
  return std::nullopt;
}

// "sign, argmax"
template <class E>
std::string all_names() {
  std::string text;
  for (const auto& entry : enum_names<E>) {
    if (!text.empty()) text += ", ";
    text += entry.name;
  }
  return text;
}

}  // namespace hax
