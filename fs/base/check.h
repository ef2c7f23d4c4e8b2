// Programmers' errors: always on, print both values, abort.
#pragma once

#include <fmt/format.h>

namespace vmfs {
[[noreturn]] void check_failed(const char* file, int line, const char* expression,
                               const std::string& detail);
}

#define CHECK_INVARIANT(condition, ...)                                                         \
  do {                                                                                          \
    if (!(condition)) [[unlikely]]                                                              \
      ::vmfs::check_failed(__FILE__, __LINE__, #condition, ::fmt::format("" __VA_ARGS__));      \
  } while (0)

// `CHECK_COMPARE(a, <=, b)`: prints both sides. The operands must be integers or formattable.
#define CHECK_COMPARE(a, op, b)                                                              \
  do {                                                                                       \
    if (!((a)op(b))) [[unlikely]]                                                            \
      ::vmfs::check_failed(__FILE__, __LINE__, #a " " #op " " #b,                            \
                           ::fmt::format("{} " #op " {}", (a), (b)));                        \
  } while (0)
