// Images that a peer has removed while this node had something of them that the peer had not: that is kept, as of
// a branch that is given up, and then they go.
#include <algorithm>

#include "fs/base/log.h"
#include "net/node/impl.h"

namespace vmfs {

// The peer's next records take these images away, and wait until go_on_letting_go().
void Node::Impl::let_go(Peer& peer, const std::vector<Volume::Loss>& losses) {
  if (peer.letting_go) return;  // begun on the connection before; when that has ended
  bool waits = false;
  std::vector<GroupId> to_keep;
  for (const Volume::Loss& loss : losses) {
    const GroupId group = loss.group;
    waits |= releasing.contains(group) || taking.contains(group);
    if (loss.alone) to_keep.push_back(group);
    // As a group that follows: what a guest is at work on is not taken from under it.
    const bool in_use = loss.alone && !closed_to_follow.contains(group) && volume.activity(group).open_writer;
    waits |= in_use;
    peer.leaving.insert(group);
    problem(fmt::format("follow-{}", group),
            in_use ? fmt::format("{}: was removed on {} while this node was away; this image has changes that only this "
                                 "node has, and is open for writing here\nclose it (stop the guest), and it is kept and "
                                 "removed by itself; until then nothing comes from {}; who has it open:  fuser -v {}",
                                 shown(group), peer.info.name, peer.info.name, shown(group))
                   : std::string());
  }
  if (waits) return;
  const std::string name = snapshot_name(to_keep);
  for (const Volume::Loss& loss : losses) {
    close_to_follow(loss.group);
    auto local = position_of(loss.group);
    if (!loss.alone || !local) {
      log_warning("{}: was removed on {} while this node was cut off, and nothing was changed here: it goes here too",
                  shown(loss.group), peer.info.name);
    } else if (loss.had.epochs.empty()) {
      log_warning("{}: was removed on {}: what only this node may have of it is kept as .snapshots/{}",
                  shown(loss.group), peer.info.name, name);
    } else {
      const Comparison compared = compare_histories({local->history, local->seq}, {loss.had.epochs, loss.had.seq});
      log_warning("{}: was removed on {} (rule {}): {} records that only this node has are kept as .snapshots/{}",
                  shown(loss.group), peer.info.name, compared.rule, compared.local_extra, name);
    }
  }
  peer.letting_go = true;
  auto done = std::make_shared<std::map<GroupId, Kept>>(kept);
  blocking(
      Shell::Lane::kKeep, [this, to_keep, name, done] { return keep_aside(to_keep, name, *done); },
      [this, id = peer.info.id, to_keep, done](Result<> result) {
        for (const auto& [each, what] : *done) kept[each] = what;
        Peer* peer = peer_by_id(id);
        if (peer == nullptr) return;
        peer->letting_go = false;
        for (GroupId group : to_keep)
          problem(fmt::format("follow-{}", group),
                  result ? std::string()
                         : fmt::format("{}: was removed on {}, and what only this node has of it cannot be kept: {}\n"
                                       "it is tried again every second, and until then nothing comes from {}; free space "
                                       "on the store's file system:  df",
                                       shown(group), peer->info.name, result.error().message, peer->info.name));
        if (result) poke();
      });
}

void Node::Impl::go_on_letting_go(Peer& peer) {
  if (!peer.letting_go && peer.stream->receiver.held()) peer.stream->receiver.go_on();
}

bool Node::Impl::may_be_removed(GroupId group) {
  const bool unknown = group != kNameSpace && std::any_of(peers.begin(), peers.end(), [&](const auto& peer) {
    return peer->stream && !peer->stream->sender.positions().knows(group);
  });
  return unknown && receiving(kNameSpace);
}

// Of a group that is gone there is nothing to settle any more, and nobody to say so.
void Node::Impl::forget_removed(Peer& peer) {
  for (auto it = peer.courses.begin(); it != peer.courses.end();) {
    const GroupId group = it->first;
    const Course course = it->second.course;
    // What comes from the peer may not be shown yet.
    const bool comes = course == Course::kReceive || course == Course::kCopyFromPeer;
    if (comes || course == Course::kCopyToPeer || volume.group(group)) {
      ++it;
      continue;
    }
    it = peer.courses.erase(it);
    for (const char* key : {"split", "whole", "follow"}) problem(fmt::format("{}-{}", key, group), "");
    closed_to_follow.erase(group);
    kept.erase(group);
  }
}

}  // namespace vmfs
