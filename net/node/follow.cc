// Giving up a branch, copies of whole groups, and split brain.
#include <algorithm>
#include <ctime>
#include <string_view>

#include "fs/base/log.h"
#include "net/node/impl.h"

namespace vmfs {
namespace {

// What is lacking here is told again after this while a peer is away: another one may not have missed it yet.
constexpr std::int64_t kTellParts = 5'000'000'000;

}  // namespace

// Of a later state than one that was kept in the same second: that has another name.
std::string Node::Impl::snapshot_name(const std::vector<GroupId>& to_keep) {
  std::time_t seconds = clock.wall_ns() / 1'000'000'000;
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  char time[32];
  std::strftime(time, sizeof time, "%Y%m%dT%H%M%SZ", &parts);
  const std::string first = fmt::format("left-{}-{}", options.node_name, time);
  std::string name = first;
  for (int number = 2; std::any_of(to_keep.begin(), to_keep.end(), [&](GroupId each) {
         auto known = kept.find(each);
         return known != kept.end() && known->second.name == name;
       });
       ++number)
    name = fmt::format("{}-{}", first, number);
  return name;
}

Result<> Node::Impl::keep_aside(const std::vector<GroupId>& to_keep, const std::string& name,
                                std::map<GroupId, Kept>& done) {
  for (GroupId each : to_keep) {
    const Position position = volume.final_position(each);
    auto known = done.find(each);
    if (known != done.end() && known->second.position == position) continue;
    auto made = volume.keep_as_snapshot(each, name);
    if (!made && volume.group(each)) return made;  // of one that is gone there is nothing to keep
    done[each] = {name, position};
  }
  return {};
}

void Node::Impl::start_follows(Peer& peer) {
  std::vector<GroupId> due;
  for (auto& [group, course] : peer.courses) {
    const bool waits = course.course == Course::kWaitFollow;
    if (course.started || (!waits && course.course != Course::kFollow)) continue;
    if (releasing.contains(group) || taking.contains(group)) continue;  // when that is over
    std::vector<GroupId> given_up{group};
    // A person's choice is not held up by a handle: see judge().
    const bool chosen = std::string_view(course.comparison.rule) == "resolved-there";
    if (group == kNameSpace && !chosen) given_up = images_only_here(peer);
    auto open = given_up.end();
    if (waits || group == kNameSpace)
      open = std::find_if(given_up.begin(), given_up.end(),
                          [this](GroupId each) { return volume.activity(each).open_writer; });
    problem(fmt::format("follow-{}", group),
            open == given_up.end()
                ? std::string()
                : fmt::format("{}: {} was promoted while this node was away and this image is open for writing "
                              "here\nclose it (stop the guest), and it follows by itself; who has it open:  fuser -v {}",
                              shown(*open), peer.info.name, shown(*open)));
    if (open != given_up.end()) continue;
    course.course = Course::kFollow;
    due.push_back(group);
  }
  for (GroupId group : due) follow(peer, group);
}

// Images that the peer does not know: once the name space is the peer's they have no name.
std::vector<GroupId> Node::Impl::images_only_here(Peer& peer) {
  std::vector<GroupId> images;
  for (const GroupState& state : volume.groups())
    if (state.id != kNameSpace && !peer.stream->sender.positions().knows(state.id)) images.push_back(state.id);
  return images;
}

// Nothing may be added to what is about to be given up.
void Node::Impl::close_to_follow(GroupId group) {
  const Gate gate = volume.gate(group);
  closed_to_follow.try_emplace(group, gate == Gate::kOpen || gate == Gate::kFrozen);
  volume.set_gate(group, Gate::kInconsistent);
  if (callbacks.expire_write_handles) callbacks.expire_write_handles(group);
  // Nor is it acknowledged that any of it is safe.
  std::vector<std::function<void(Result<>)>> given_up;
  for (auto it = flush_waits.begin(); it != flush_waits.end();) {
    if (it->second.group != group) {
      ++it;
      continue;
    }
    given_up.push_back(std::move(it->second.done));
    it = flush_waits.erase(it);
  }
  const Error error{ErrorKind::kIo, EIO, "what was to be flushed is given up, and kept"};
  for (auto& done : given_up) done(pass(error));
}

// It was not replaced after all. If that is `settled`, the group is as open as it was before; otherwise who may
// change it is to be found out when the peer is back, or for a person to say.
void Node::Impl::stop_following(GroupId group, bool settled) {
  auto closed = closed_to_follow.find(group);
  if (closed == closed_to_follow.end()) return;
  const bool was_open = closed->second;
  closed_to_follow.erase(closed);
  auto state = volume.group(group);
  if (!state || state->inconsistent) return;  // replaced in part: a copy ends that
  if (state->owner != options.node) {
    volume.change_gate(group, Gate::kInconsistent, Gate::kSecondary);
  } else if (!settled || !was_open || !volume.change_gate(group, Gate::kInconsistent, idle_gate())) {
    if (volume.change_gate(group, Gate::kInconsistent, Gate::kSuspended)) {
      unsettled.insert(group);
      if (!settled) must_hear.insert(group);
    }
  }
  volume.reopen(group);
}

// What this node alone has is kept as a snapshot; then the peer's content is asked for.
void Node::Impl::follow(Peer& peer, GroupId group) {
  GroupCourse& mine = peer.courses[group];
  mine.started = true;
  std::vector<GroupId> to_keep;
  if (group == kNameSpace) to_keep = images_only_here(peer);
  to_keep.push_back(group);
  const std::string name = snapshot_name(to_keep);
  for (GroupId each : to_keep) close_to_follow(each);
  log_warning("{}: following {} (rule {}); {} records are only here", shown(group), peer.info.name,
              mine.comparison.rule, mine.comparison.local_extra);
  struct Outcome {
    std::optional<std::vector<BaseRange>> ranges;
    std::map<GroupId, Kept> kept;
  };
  auto outcome = std::make_shared<Outcome>();
  outcome->kept = kept;
  const Position common = mine.comparison.common;
  blocking(
      Shell::Lane::kKeep,
      [this, to_keep, name, group, common, outcome]() -> Result<> {
        Volume::Touched touched;
        if (group != kNameSpace && raw(common.epoch) != 0) {
          (void)volume.final_position(group);  // who came through the gate before has ended
          VMFS_ASSIGN(touched, volume.touched_since(group, common));
          outcome->ranges = std::move(touched.ranges);
        }
        // A branch on which nothing was changed is given up without a trace.
        return touched.changed ? keep_aside(to_keep, name, outcome->kept) : Result<>{};
      },
      [this, id = peer.info.id, number = peer.connection->number, group, name, outcome](Result<> result) {
        for (const auto& [each, what] : outcome->kept) kept[each] = what;
        if (auto known = outcome->kept.find(group); known != outcome->kept.end() && known->second.name == name)
          log_notice("{}: what only this node had is kept as {}", shown(group),
                     group == kNameSpace ? fmt::format("kept-names/{}.txt in the store", name)
                                         : fmt::format(".snapshots/{}", name));
        Peer* peer = peer_by_id(id);
        if (peer == nullptr || !peer->stream || peer->connection->number != number) return;
        GroupCourse* mine = course(*peer, group);
        if (mine == nullptr || mine->course != Course::kFollow) return;
        if (!result) {
          problem(fmt::format("follow-{}", group),
                  fmt::format("{}: cannot follow {}: what only this node has cannot be kept: {}\n"
                              "it is tried again every second; free space on the store's file system:  df",
                              shown(group), peer->info.name, result.error().message));
          mine->started = false;  // the next second tries again
          return;
        }
        kept_aside(*peer, group, std::move(outcome->ranges));
      });
}

// Since the two were compared, and until the gate was closed, the branch may have grown: changes that were made
// knowing of the other side are not given up without a person.
void Node::Impl::kept_aside(Peer& peer, GroupId group, std::optional<std::vector<BaseRange>> ranges) {
  GroupCourse* mine = course(peer, group);
  auto local = position_of(group);
  if (!local) return;
  const Judgement again = judge(*local, mine->remote);
  if (again.course != Course::kFollow && again.course != Course::kWaitFollow) {
    const GroupPosition remote = std::move(mine->remote);
    const std::map<GroupId, bool> closed = closed_to_follow;
    // With the name space the images that only it names; those that follow by themselves go on.
    for (const auto& [each, was_open] : closed)
      if (each == group || (group == kNameSpace && course(peer, each) == nullptr)) stop_following(each, true);
    send_positions(peer, {*local}, true);
    apply_course(peer, group, *local, remote, false);
    return poke();
  }
  problem(fmt::format("follow-{}", group), "");
  log_info("{}: asks {} for {}", shown(group), peer.info.name,
           ranges ? fmt::format("{} ranges", ranges->size())
                  : std::string("all of it: what was changed here is not in the journal any more"));
  send_base_request(peer, group, mine->comparison.common, std::move(ranges));
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
  std::string key = fmt::format("copy-{}", group);
  if (!result && result.error().kind != ErrorKind::kNotFound) {
    problem(key, fmt::format("{}: the copy to {} failed: {}; it begins again by itself",
                             shown(group), peer.info.name, result.error().message));
    // Until then the peer is not in sync: see periodic().
    GroupCourse& mine = peer.courses[group];
    mine.course = Course::kCopyToPeer;
    mine.started = false;
  } else {
    peer.courses.erase(group);
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
    problem(key, fmt::format("{}: split brain with {}; replication of it has stopped\n"
                             "choose the side that survives (the other is kept as a snapshot):\n"
                             "  vmfs resolve {} --keep local\n  vmfs resolve {} --keep peer",
                             shown(group), side, shown(group), shown(group)));
  }
  blocking(
      Shell::Lane::kSync, [this, group, split] { return volume.set_split(group, split); },
      [this, group, split, key](Result<> result) {
        if (!result) problem(key, fmt::format("{}: {}", shown(group), result.error().message));
        auto state = volume.group(group);
        if (!state || !split) return;
        unsettled.erase(group);  // somebody may have asked for it meanwhile
        // The owner of each side may go on, if it was at work: after a start only a person says which side
        // is the one. Nobody else may.
        const Gate gate = volume.gate(group);
        if (state->owner != options.node)
          volume.set_gate(group, Gate::kSplit);
        else if (gate == Gate::kSuspended || gate == Gate::kInconsistent)
          volume.change_gate(group, gate, Gate::kSplit);
        volume.reopen(group);
        poke();
      });
}

// Of a group of which this node has a part of a copy: whether the node that it was copied from may come back, or a
// connected one has it whole.
bool Node::Impl::can_be_completed(GroupId group) {
  auto state = volume.group(group);
  if (!state || peer_by_id(state->owner) != nullptr) return true;
  return std::any_of(peers.begin(), peers.end(), [&](const auto& peer) {
    if (!peer->stream) return true;  // it may have it
    const GroupCourse* found = course(*peer, group);
    return found != nullptr ? found->course != Course::kNeitherWhole : peer->stream->sender.positions().knows(group);
  });
}

void Node::Impl::look_at_parts() {
  for (GroupId group : parts) volume.set_may_go(group, !can_be_completed(group));
}

bool Node::Impl::is_being_copied(GroupId group, const Peer* but) {
  return std::any_of(peers.begin(), peers.end(), [&](const auto& peer) {
    const GroupCourse* found = peer->stream && peer.get() != but ? course(*peer, group) : nullptr;
    return found != nullptr && found->course == Course::kCopyFromPeer && found->started;
  });
}

// Whoever has what is not whole here learns of that, and copies it if that is its turn. Not of what comes already.
void Node::Impl::tell_parts() {
  tell_parts_ns = now() + kTellParts;
  if (streams.load() == 0) return;
  std::vector<GroupPosition> lacking;
  for (const GroupState& state : volume.groups()) {
    if (!state.inconsistent && !state.history.empty()) continue;
    if (is_being_copied(state.id, nullptr) || receiving(state.id)) continue;
    if (auto position = position_of(state.id)) lacking.push_back(std::move(*position));
  }
  for (auto& peer : peers)
    if (peer->stream && !lacking.empty()) send_positions(*peer, lacking, true);
}

// The other side of a split has been removed from the volume: this one is all there is. (Another node whose histories
// have been compared would say so if it were that side.)
void Node::Impl::end_splits_of_nobody() {
  if (std::any_of(peers.begin(), peers.end(), [](const auto& peer) { return !peer->stream; })) return;
  for (const GroupState& state : volume.groups()) {
    if (!state.split) continue;
    bool still = false;
    for (auto& peer : peers)
      if (GroupCourse* found = course(*peer, state.id); found != nullptr && found->course == Course::kSplit) still = true;
    if (still) continue;
    for (auto& peer : peers) audit_again(*peer, state.id);
    log_notice("{}: its other side has been removed from the volume: this one survives", shown(state.id));
    mark_split(state.id, false);
    if (state.owner != options.node) continue;
    volume.change_gate(state.id, Gate::kSplit, Gate::kSuspended);
    unsettled.insert(state.id);
  }
}

// A person chose this side: said by a new epoch, which every node understands when it compares.
void Node::Impl::win(GroupId group, std::function<void(Result<>)> done) {
  auto state = volume.group(group);
  if (!state || !state->split) {
    done(fail(ErrorKind::kInvalid, EINVAL, fmt::format("{}: not in split brain", shown(group))));
    return;
  }
  take(group, EpochCause::kResolved, [this, group, done = std::move(done)](Result<> result) {
    if (result) {
      mark_split(group, false);
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
