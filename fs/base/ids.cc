#include "fs/base/ids.h"

#include <sys/random.h>

#include "fs/base/check.h"

namespace vmfs {

std::uint64_t random_u64() {
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
  CHECK_INVARIANT(::getrandom(id.data(), id.size(), 0) == static_cast<ssize_t>(id.size()),
                  "getrandom");
  return id;
}

std::string to_string(const VolumeId& id) {
  std::string text;
  for (std::byte b : id) text += fmt::format("{:02x}", static_cast<unsigned>(b));
  return text;
}

}  // namespace vmfs
