#include "fs/base/ids.h"

#include <sys/random.h>

#include <cstring>

#include "fs/base/check.h"

namespace vmfs {

namespace {
std::uint64_t (*source_for_simulation)() = nullptr;
}

void set_random_source_for_simulation(std::uint64_t (*source)()) { source_for_simulation = source; }

std::uint64_t random_u64() {
  if (source_for_simulation != nullptr) [[unlikely]] return source_for_simulation();
  std::uint64_t value = 0;
  // Reads of up to 256 bytes are never short once the generator is seeded: getrandom(2).
  CHECK_INVARIANT(::getrandom(&value, sizeof value, 0) == sizeof value, "getrandom");
  return value;
}

namespace {
std::uint64_t random_above_one() {
  for (;;)
    if (std::uint64_t value = random_u64() & ~(std::uint64_t{1} << 63); value > 1) return value;
}
}  // namespace

ObjectId new_object_id() { return ObjectId{random_above_one()}; }
NodeId new_node_id() { return NodeId{random_above_one()}; }
EpochId new_epoch_id() { return EpochId{random_above_one()}; }
ConnectionId new_connection_id() { return ConnectionId{random_above_one()}; }

VolumeId new_volume_id() {
  VolumeId id;
  static_assert(sizeof id == 2 * sizeof(std::uint64_t));
  const std::uint64_t halves[2] = {random_u64(), random_u64()};
  std::memcpy(id.data(), halves, sizeof id);
  return id;
}

std::string to_string(const VolumeId& id) {
  std::string text;
  for (std::byte b : id) text += fmt::format("{:02x}", static_cast<unsigned>(b));
  return text;
}

std::array<char, 16> hex_digits(std::uint64_t id) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::array<char, 16> digits;
  for (int i = 15; i >= 0; --i, id >>= 4) digits[static_cast<std::size_t>(i)] = kDigits[id & 15];
  return digits;
}

}  // namespace vmfs
