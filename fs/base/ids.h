// The identities that everything else is named by. All are strong types; 0 means "none".
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

namespace vmfs {

// A file, directory or symlink, for ever: random, 63 bits, the same on every node, and also the
// FUSE node id. 1 is the root directory.
enum class ObjectId : std::uint64_t {};
inline constexpr ObjectId kRootObject{1};

// What has one owner and one sequence. An image's group is its object's id; the name space's is the
// root directory's.
using GroupId = ObjectId;
inline constexpr GroupId kNameSpace{1};

enum class NodeId : std::uint64_t {};   // a machine's part in one volume; random
enum class EpochId : std::uint64_t {};  // random
enum class ConnectionId : std::uint64_t {};  // one FUSE connection (a mount's life); random

// A place in one node's journal: a byte position that only grows. See fs/journal/format.h.
using Lsn = std::uint64_t;

using VolumeId = std::array<std::byte, 16>;

template <class Id>
  requires std::is_enum_v<Id>
constexpr std::uint64_t raw(Id id) {
  return static_cast<std::uint64_t>(id);
}

// Last record of a group that somebody holds. Comparable only along one history.
struct Position {
  EpochId epoch{};
  std::uint64_t seq = 0;
  friend bool operator==(const Position&, const Position&) = default;
};

// Which FUSE request a record answers, so that one that the kernel sends again is answered from the
// record instead of being done again. `unique` has bit 63 (FUSE_UNIQUE_RESEND) masked. {0,0}: none.
struct RequestId {
  ConnectionId connection{};
  std::uint64_t unique = 0;
  friend bool operator==(const RequestId&, const RequestId&) = default;
};

// From the kernel's random generator; never 0; ObjectId: bit 63 clear and above 1.
ObjectId new_object_id();
NodeId new_node_id();
EpochId new_epoch_id();
ConnectionId new_connection_id();
VolumeId new_volume_id();
std::uint64_t random_u64();
// From now on all of the above come from `source`, so that a simulation replays from its seed; null:
// the kernel again. Not while other threads run. Nobody may take randomness from anywhere else.
void set_random_source_for_simulation(std::uint64_t (*source)());

std::string to_string(const VolumeId& id);  // 32 hex digits
// The 16 hex digits as which all other ids print.
std::array<char, 16> hex_digits(std::uint64_t id);

}  // namespace vmfs

// Without fmt::format_to(): that would compile all of fmt's formatting in every file that prints an id.
template <class Id>
  requires(std::is_same_v<Id, vmfs::ObjectId> || std::is_same_v<Id, vmfs::NodeId> ||
           std::is_same_v<Id, vmfs::EpochId> || std::is_same_v<Id, vmfs::ConnectionId>)
struct fmt::formatter<Id> {
  constexpr auto parse(format_parse_context& context) { return context.begin(); }
  auto format(Id id, format_context& context) const {
    const std::array<char, 16> digits = vmfs::hex_digits(vmfs::raw(id));
    return std::copy(digits.begin(), digits.end(), context.out());
  }
};
