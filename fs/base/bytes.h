// Little-endian encoding of small structures whose size varies (names, lists). Fixed headers are
// structs with static_asserts instead.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace vmfs {

static_assert(std::endian::native == std::endian::little,
              "on-disk and wire structs are written as they lie in memory");

using Bytes = std::vector<std::byte>;
using ByteView = std::span<const std::byte>;

inline ByteView as_bytes(std::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

// Appends to a byte vector.
class Writer {
 public:
  explicit Writer(Bytes& out) : out_(out) {}
  template <class T>
    requires(std::is_integral_v<T> || std::is_enum_v<T>)
  Writer& put(T value) {
    return bytes({reinterpret_cast<const std::byte*>(&value), sizeof value});
  }
  Writer& bytes(ByteView view) {
    out_.insert(out_.end(), view.begin(), view.end());
    return *this;
  }
  // u32 length, then the bytes.
  Writer& text(std::string_view view) {
    put(static_cast<std::uint32_t>(view.size()));
    return bytes(as_bytes(view));
  }

 private:
  Bytes& out_;
};

// Reads what Writer wrote. After a read past the end `ok()` is false and every value is zero or
// empty: check once, at the end.
class Reader {
 public:
  explicit Reader(ByteView in) : in_(in) {}
  template <class T>
    requires(std::is_integral_v<T> || std::is_enum_v<T>)
  T get() {
    T value{};
    if (ByteView view = bytes(sizeof value); view.size() == sizeof value)
      std::memcpy(&value, view.data(), sizeof value);
    return value;
  }
  ByteView bytes(std::size_t size) {
    if (!ok_ || size > in_.size()) {
      ok_ = false;
      return {};
    }
    ByteView view = in_.first(size);
    in_ = in_.subspan(size);
    return view;
  }
  std::string text(std::size_t most) {
    auto size = get<std::uint32_t>();
    if (size > most) ok_ = false;
    ByteView view = bytes(size);
    return {reinterpret_cast<const char*>(view.data()), view.size()};
  }
  bool ok() const { return ok_; }
  bool at_end() const { return ok_ && in_.empty(); }
  std::size_t remaining() const { return in_.size(); }

 private:
  ByteView in_;
  bool ok_ = true;
};

}  // namespace vmfs
