// Giving up a branch, copies of whole groups, and split brain.
#include <ctime>

#include "fs/base/log.h"
#include "net/node/impl.h"

namespace vmfs {

std::string Node::Impl::snapshot_name() {
  std::time_t seconds = clock.wall_ns() / 1'000'000'000;
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  char time[32];
  std::strftime(time, sizeof time, "%Y%m%dT%H%M%SZ", &parts);
  return fmt::format("left-{}-{}", options.node_name, time);
}

void Node::Impl::start_follows(Peer& peer) {
  std::vector<GroupId> due;
  for (auto& [group, course] : peer.courses) {
    if (course.started) continue;
    if (course.course == Course::kWaitFollow) {
      bool open = volume.activity(group).open_writer;
      std::string text =
          fmt::format("{}: {} was promoted while this node was away and this image is open for writing "
                      "here; close it (stop the guest) and it follows by itself",
                      shown(group), peer.info.name);
      problem(fmt::format("follow-{}", group), open ? text : std::string());
      if (open) continue;
      course.course = Course::kFollow;
    }
    if (course.course == Course::kFollow) due.push_back(group);
  }
  for (GroupId group : due) follow(peer, group);
}

// What this node alone has is kept as a snapshot; then the peer's content is asked for.
void Node::Impl::follow(Peer& peer, GroupId group) {
  GroupCourse& mine = peer.courses[group];
  mine.started = true;
  // Nothing may be added to the branch that is given up (a person may have resolved it while it was
  // in use).
  if (volume.gate(group) == Gate::kOpen) volume.set_gate(group, Gate::kInconsistent);
  if (callbacks.expire_write_handles) callbacks.expire_write_handles(group);
  std::vector<GroupId> to_keep;
  if (group == kNameSpace) to_keep = peer.only_here;
  to_keep.push_back(group);
  std::string name = kept.contains(group) ? kept[group] : snapshot_name();
  bool is_kept = kept.contains(group);
  log_warning("{}: following {} (rule {}): {} records that only this node has are kept as {}",
              shown(group), peer.info.name, mine.comparison.rule, mine.comparison.local_extra,
              fmt::format(".snapshots/{}", name));
  auto ranges = std::make_shared<std::optional<std::vector<BaseRange>>>();
  Position common = mine.comparison.common;
  blocking(
      Shell::Lane::kCopy,
      [this, to_keep, name, is_kept, group, common, ranges]() -> Result<> {
        if (!is_kept)
          for (GroupId each : to_keep) {
            auto done = volume.keep_as_snapshot(each, name);
            if (!done && done.error().kind != ErrorKind::kNotFound) return pass(done.error());
          }
        if (group == kNameSpace || raw(common.epoch) == 0) return {};
        VMFS_ASSIGN(*ranges, volume.touched_since(group, common));
        return {};
      },
      [this, id = peer.info.id, connection = peer.connection, group, common, ranges,
       name](Result<> result) {
        Peer* peer = peer_by_id(id);
        if (result) kept[group] = name;
        if (peer == nullptr || !peer->stream || peer->connection != connection) return;
        GroupCourse* mine = course(*peer, group);
        if (mine == nullptr || mine->course != Course::kFollow) return;
        if (!result) {
          problem(fmt::format("follow-{}", group),
                  fmt::format("{}: cannot follow {}: what only this node has cannot be kept: {}",
                              shown(group), peer->info.name, result.error().message));
          mine->started = false;  // the next second tries again
          return;
        }
        problem(fmt::format("follow-{}", group), "");
        log_info("{}: asks {} for {}", shown(group), peer->info.name,
                 *ranges ? fmt::format("{} ranges", (*ranges)->size())
                         : std::string("all of it: what was changed here is not in the journal any more"));
        send_base_request(*peer, group, common, std::move(*ranges));
      });
}

void Node::Impl::send_base_request(Peer& peer, GroupId group, Position common,
                                   std::optional<std::vector<BaseRange>> ranges) {
  BaseRequest request;
  request.group = group;
  request.common = common;
  if (ranges) {
    request.whole = false;
    request.ranges = coarsen_ranges(merge_ranges(std::move(*ranges), {}), kRangesMax);
  }
  send(peer, request);
}

void Node::Impl::on_base_request(Peer& peer, BaseRequest request) {
  if (!peer.stream) return;
  GroupCourse* found = course(peer, request.group);
  if (found == nullptr || found->course != Course::kPeerFollows) {
    log_warning("{}: {} asks for a copy that it does not need as far as known here; ignored",
                shown(request.group), peer.info.name);
    return;
  }
  found->started = true;
  log_notice("{}: {} follows: {} is copied", shown(request.group), peer.info.name,
             request.whole ? "all of it" : fmt::format("what changed in {} ranges and here since",
                                                       request.ranges.size()));
  BaseJob job;
  job.group = request.group;
  job.whole = request.whole;
  job.common = request.common;
  job.ranges = std::move(request.ranges);
  peer.stream->copies.add(std::move(job));
  pump(peer);
}

void Node::Impl::needs_copy(Peer& peer, GroupId group, const char* why) {
  auto state = volume.group(group);
  if (!state) return;
  if (state->history.empty() || state->inconsistent || state->split) return;
  GroupCourse& mine = peer.courses[group];
  mine.course = Course::kCopyToPeer;
  mine.started = true;
  log_warning("{}: is copied whole to {}: {}", shown(group), peer.info.name, why);
  BaseJob job;
  job.group = group;
  peer.stream->sender.positions().stop(group);
  peer.stream->sender.incomplete(group);
  peer.stream->copies.add(std::move(job));
}

void Node::Impl::copy_finished(Peer& peer, GroupId group, const Result<>& result) {
  peer.courses.erase(group);
  std::string key = fmt::format("copy-{}", group);
  if (!result && result.error().kind != ErrorKind::kNotFound) {
    problem(key, fmt::format("{}: the copy to {} failed: {}; it begins again when they connect next",
                             shown(group), peer.info.name, result.error().message));
  } else {
    problem(key, "");
    if (result) log_notice("{}: the copy to {} is complete", shown(group), peer.info.name);
  }
  if (group == kNameSpace && result) {
    // The peer knows the names now: whose content it lacks comes next.
    peer.audit.clear();
    for (const GroupState& state : volume.groups()) peer.audit.push_back(state.id);
    peer.audit_lsn = volume.journal().written_lsn();
  }
  // From the stream's own callback: what follows is done from the queue.
  post([this, id = peer.info.id] {
    Peer* peer = peer_by_id(id);
    if (peer != nullptr && peer->stream) pump(*peer);
  });
  poke();
}

void Node::Impl::mark_split(GroupId group, bool split) {
  unsettled.erase(group);
  std::string key = fmt::format("split-{}", group);
  if (!split) {
    problem(key, "");
  } else {
    std::string side;
    for (auto& peer : peers) {
      GroupCourse* found = peer->stream ? course(*peer, group) : nullptr;
      if (found == nullptr || found->course != Course::kSplit) continue;
      side = fmt::format("{} (rule {}: {} records here and {} there since epoch {} seq {})",
                         peer->info.name, found->comparison.rule, found->comparison.local_extra,
                         found->comparison.remote_extra, found->comparison.common.epoch,
                         found->comparison.common.seq);
    }
    problem(key, fmt::format("{}: split brain with {}; replication of it has stopped; choose the side "
                             "that survives (the other is kept as a snapshot): vmfs resolve {} --keep "
                             "local|peer",
                             shown(group), side, shown(group)));
  }
  blocking(
      Shell::Lane::kSync, [this, group, split] { return volume.set_split(group, split); },
      [this, group, split, key](Result<> result) {
        if (!result) problem(key, fmt::format("{}: {}", shown(group), result.error().message));
        auto state = volume.group(group);
        if (!state || !split) return;
        // Each side's owner may go on; nobody else may.
        bool owner = state->owner == options.node;
        volume.set_gate(group, owner ? (frozen ? Gate::kFrozen : Gate::kOpen) : Gate::kSplit);
        volume.reopen(group);
        poke();
      });
}

// A person chose this side: said by a new epoch, which every node understands when it compares.
void Node::Impl::win(GroupId group, std::function<void(Result<>)> done) {
  auto state = volume.group(group);
  if (!state || !state->split) {
    done(fail(ErrorKind::kInvalid, EINVAL, fmt::format("{}: not in split brain", shown(group))));
    return;
  }
  mark_split(group, false);
  take(group, EpochCause::kResolved, [this, group, done = std::move(done)](Result<> result) {
    if (result) {
      if (auto position = position_of(group)) {
        std::vector<GroupPosition> positions{std::move(*position)};
        for (auto& peer : peers) {
          if (!peer->stream) continue;
          if (GroupCourse* found = course(*peer, group)) {
            found->course = Course::kPeerFollows;
            found->started = false;
          }
          send_positions(*peer, positions, true);
        }
        log_notice("{}: this side survives", shown(group));
      }
    }
    done(std::move(result));
  });
}

}  // namespace vmfs
