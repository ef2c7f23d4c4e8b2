// What a node decides about owning a group, as pure functions of facts: nothing here does I/O, waits,
// or reads a clock. net/node gathers the facts and carries the answers out.
#pragma once

#include <cstdint>
#include <string>

#include "fs/base/ids.h"
#include "fs/volume/replication_hooks.h"
#include "fs/volume/volume.h"
#include "net/history/compare.h"
#include "net/wire/messages.h"

namespace vmfs {

// An asking write waits no longer.
inline constexpr std::int64_t kTokenWait = 10'000'000'000;
// A token is handed over when the taker is within this: the asker then waits about as long, because
// the taker must hold everything before it may write.
inline constexpr std::int64_t kTakerLagMax = 1'000'000'000;

// --- After an exchange of positions ---------------------------------------------------------------

// What is to be done with one group, between this node and one peer.
enum class Course : std::uint8_t {
  kNothing,       // both have the same
  kSend,          // the peer gets our records from the journal
  kReceive,       // we get the peer's records: our tail, or what it changed; nothing is lost
  kFollow,        // our extra records are set aside and the peer's content is fetched
  kWaitFollow,    // as kFollow, but a handle that may write is open here: when it closes
  kPeerFollows,   // the mirror image: the peer will ask
  kCopyToPeer,    // the peer has nothing, or a broken copy: a whole one is sent
  kCopyFromPeer,  // the mirror image: the peer will send
  kSplit,         // a person must choose
  kNeitherWhole,  // both hold only a part of a copy
};

struct Judgement {
  Course course = Course::kNothing;
  Comparison comparison;
};

// Both sides judge the same two positions and get mirrored courses. Who has an open writer
// is taken from the positions.
Judgement judge(const GroupPosition& local, const GroupPosition& remote);

const char* to_string(Course course);

// --- A peer wants the token ------------------------------------------------------------------------

struct WantFacts {
  bool owned_here = false;
  Gate gate = Gate::kOpen;
  bool streaming = false;  // the group's records flow to the asker
  bool active = false;     // Activity::active
  bool force = false;
  std::int64_t lag_ns = 0;  // of the asker
  bool overdue = false;     // it has waited kTokenWait
};

enum class WantAnswer : std::uint8_t { kRelease, kWait, kActive, kNotOwner, kBehind, kUnsettled };
WantAnswer answer_want(const WantFacts& facts);

// --- Promote ---------------------------------------------------------------------------------------

struct PromoteFacts {
  bool owned_here = false;
  Gate gate = Gate::kOpen;
  bool known = true;          // there is a history here
  bool inconsistent = false;
  bool split = false;
  bool owner_connected = false;   // and its histories compared
  bool taker_here = false;        // released to this node, which only has to take it
  bool taker_connected = false;   // released to a peer that is connected, and takes it
  bool all_heard = false;         // every peer's histories were compared since the start
  bool adopting = false;          // a tail is on its way from a connected peer
  bool parted = false;            // a connected peer has the newer branch, and we shall follow it
  bool force = false;
};

enum class PromoteAnswer : std::uint8_t {
  kDone,            // it is ours and open
  kAsk,             // send Want to the owner
  kWait,            // something under way will settle it
  kTakeForced,      // take it without the owner
  kRefuseDisconnected,
  kRefuseInconsistent,
  kRefuseSplit,
  kRefuseParted,
  kRefuseUnknown,
};
PromoteAnswer answer_promote(const PromoteFacts& facts);

// --- After a start ---------------------------------------------------------------------------------

struct SettleFacts {
  bool all_heard = false;   // every peer that was not removed
  bool adopting = false;    // a tail is still on its way here
  bool following = false;   // our branch is to be given up
  bool inconsistent = false;
};

// Whether ownership that was suspended at the start may resume, or a token named to us be taken.
bool may_settle(const SettleFacts& facts);

}  // namespace vmfs
