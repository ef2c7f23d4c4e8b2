// The checksum of everything we store and send: XXH3, 64 bits (https://xxhash.com, 0.8).
#pragma once

#include <xxhash.h>

#include <cstddef>
#include <cstdint>
#include <span>

namespace vmfs {

inline std::uint64_t hash64(std::span<const std::byte> bytes, std::uint64_t seed = 0) {
  return XXH3_64bits_withSeed(bytes.data(), bytes.size(), seed);
}

}  // namespace vmfs
