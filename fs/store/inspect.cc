#include "fs/store/inspect.h"

#include <cstring>

#include "fs/base/sizes.h"
#include "fs/store/state.h"

namespace vmfs {

namespace {

const char* cause_text(EpochCause cause) {
  switch (cause) {
    case EpochCause::kCreated: return "created";
    case EpochCause::kTaken: return "taken";
    case EpochCause::kForced: return "forced";
    case EpochCause::kPeerLost: return "peer lost";
    case EpochCause::kUncleanStop: return "unclean stop";
    case EpochCause::kResolved: return "resolved";
  }
  return "unknown";
}

}  // namespace

bool looks_like_state(ByteView content) {
  return content.size() >= sizeof kStateMagic &&
         std::memcmp(content.data(), &kStateMagic, sizeof kStateMagic) == 0;
}

Result<std::string> inspect_state(ByteView content, const std::string& shown) {
  VMFS_ASSIGN(CheckpointState state, decode_state(content, shown));
  std::string text;
  auto line = [&]<class... Args>(fmt::format_string<Args...> format, Args&&... arguments) {
    text += fmt::format(format, std::forward<Args>(arguments)...) + '\n';
  };
  line("{}: state of a store, format version {}", shown, kStateVersion);
  line("volume       {}", to_string(state.volume));
  line("node         {}", state.node);
  line("stopped      {}", state.clean ? "cleanly" : "not yet, or without warning");
  line("replay from  LSN {}", state.replay_from);
  line("checkpoints  {}", state.checkpoints);
  line("generation   {} of the journal", state.generation);
  for (const PeerState& peer : state.peers)
    line("peer {} ({}): confirmed LSN {}, {}, last contact {}", peer.id, peer.name, peer.confirmed,
         peer.was_in_sync ? "was in sync" : "was not in sync",
         human_time(peer.last_contact_wall_ns));
  for (const GroupState& group : state.groups) {
    line("group {}{}: owner {}{}, seq {}{}{}", group.id,
         group.id == kNameSpace ? " (name space)" : "",
         raw(group.owner) ? fmt::format("{}", group.owner) : "none",
         raw(group.taker) ? fmt::format(", released to {}", group.taker) : "", group.seq,
         group.inconsistent ? ", inconsistent" : "", group.split ? ", split" : group.suspended ? ", suspended" : "");
    if (raw(group.recycled.epoch))
      line("  recycled through epoch {} seq {}", group.recycled.epoch, group.recycled.seq);
    for (const EpochEntry& entry : group.history)
      line("  epoch {} of node {}, {} at {}, leaves epoch {} at seq {}", entry.epoch, entry.node,
           cause_text(entry.cause), human_time(entry.wall_ns), entry.parent.epoch,
           entry.parent.seq);
  }
  for (const AnsweredRequest& answer : state.answered)
    line("request {} of connection {} was answered: error {}, object {}", answer.request.unique,
         answer.request.connection, answer.error, answer.object);
  return text;
}

}  // namespace vmfs
