#include "net/replication/receiver.h"

#include <limits>

namespace vmfs {

void LocalSync::request(std::function<void(Result<Lsn>)> done) {
  waiting_.push_back(std::move(done));
  if (!running_) run();
}

void LocalSync::run() {
  running_ = true;
  auto served = std::make_shared<std::vector<std::function<void(Result<Lsn>)>>>(std::move(waiting_));
  waiting_.clear();
  auto result = std::make_shared<Result<Lsn>>(Lsn{0});
  shell_.run_blocking(
      Shell::Lane::kSync,
      [this, result] {
        Journal& journal = volume_.journal();
        auto synced = journal.sync_through(journal.written_lsn());
        if (!synced) {
          *result = pass(synced.error());
          return;
        }
        Lsn durable = journal.durable_lsn();
        auto published = volume_.publish_received(durable);
        if (!published)
          *result = fail(ErrorKind::kWouldWait, published.error().number, std::move(published.error().message));
        else
          *result = durable;
      },
      [this, result, served] {
        running_ = false;
        if (!waiting_.empty()) run();
        for (auto& done : *served) done(*result);
      });
}

void Receiver::records(ByteView body) {
  if (!waiting_.empty() || refuses()) return keep(body);
  auto frame = decode_records(body);
  if (!frame) return events_.failed(frame.error());
  if (!take(*frame)) keep(body);
}

void Receiver::keep(ByteView body) {
  if (waiting_bytes_ + body.size() > kWaitingMax)
    return events_.failed({ErrorKind::kProtocol, EPROTO,
                           fmt::format("the peer has {} bytes of records under way, more than it may",
                                       waiting_bytes_ + body.size())});
  waiting_.emplace_back(body.begin(), body.end());
  waiting_bytes_ += body.size();
}

// False: no room, keep the frame. (After a failure the connection ends, so true.)
bool Receiver::take(const RecordsFrame& frame) {
  if (frame.number != received_ + 1) {
    events_.failed({ErrorKind::kProtocol, EPROTO,
                    fmt::format("records frame {} after {}", frame.number, received_)});
    return true;
  }
  for (const ReceivedRecord& record : frame.records) {
    if (record.header.type != RecordType::kBaseBegin || events_.may_begin_copy(GroupId{record.header.group})) continue;
    events_.failed({ErrorKind::kBusy, EBUSY, "it begins a copy of what another node copies here: after that one"});
    return true;
  }
  std::vector<Volume::Loss> losses;
  auto end = volume_.receive(frame.records, &losses);
  if (!end) {
    held_ = !losses.empty();
    if (end.error().kind == ErrorKind::kWouldWait || held_) {
      if (full_since_ns_ == 0) full_since_ns_ = clock_.monotonic_ns();
      // What was received so far must become durable before it can be applied and its space reused.
      if (received_ > durable_) start_sync();
      if (held_) events_.takes_away(std::move(losses));
      return false;
    }
    events_.failed(end.error());
    return true;
  }
  if (shown()) full_since_ns_ = 0;
  received_ = frame.number;
  // Neighbours share an entry: there are few, and nobody looks closer.
  constexpr std::uint64_t kGrain = 256u << 10;
  if (!unstored_.empty() && *end < unstored_.back().from + kGrain) {
    unstored_.back().number = frame.number;
    unstored_.back().through = *end;
  } else {
    unstored_.push_back({frame.number, *end, *end});
  }
  std::uint64_t bytes = 0;
  for (const ReceivedRecord& record : frame.records) {
    bytes += sizeof(RecordHeader) + record.payload.size();
    events_.received(record);
  }
  bytes_received_ += bytes;
  unsynced_bytes_ += bytes;
  if (unsynced_since_ns_ == 0) unsynced_since_ns_ = clock_.monotonic_ns();
  if (frame.sync_now) sync_wanted_ = frame.number;
  const bool was_full = full_told_ && shown();
  if (shown()) full_told_ = false;
  events_.send_ack({received_, durable_, applied_, full_told_});
  if (frame.sync_now || unsynced_bytes_ >= kSyncBytes || was_full) start_sync();
  return true;
}

void Receiver::flush_request() {
  sync_wanted_ = received_ + waiting_.size();
  if (durable_ < received_) start_sync();
}

void Receiver::stored(Lsn stored) {
  std::uint64_t before = applied_;
  while (!unstored_.empty() && unstored_.front().through <= stored && unstored_.front().number <= durable_) {
    applied_ = unstored_.front().number;
    unstored_.pop_front();
  }
  if (applied_ != before) events_.send_ack({received_, durable_, applied_, full_told_});
}

void Receiver::start_sync() {
  if (syncing_) return;
  syncing_ = true;
  sync_begun_ns_ = clock_.monotonic_ns();
  unsynced_bytes_ = 0;
  unsynced_since_ns_ = 0;
  sync_.request([this, alive = alive_, number = received_](Result<Lsn> durable) {
    if (*alive) synced(number, std::move(durable));
  });
}

void Receiver::synced(std::uint64_t number, Result<Lsn> durable) {
  syncing_ = false;
  if (!durable && durable.error().kind == ErrorKind::kWouldWait) {
    show_again_ns_ = clock_.monotonic_ns() + kShowRetry;
    if (full_since_ns_ == 0) full_since_ns_ = clock_.monotonic_ns();
    return events_.not_shown();
  }
  if (!durable) return events_.failed(durable.error());
  if (!shown()) {
    show_again_ns_ = 0;
    if (waiting_.empty()) full_since_ns_ = 0;
    full_told_ = false;
  }
  if (full_since_ns_ == 0) full_told_ = false;  // the sync had taken long, and has ended
  durable_ = std::max(durable_, number);
  events_.send_ack({received_, durable_, applied_, full_told_});
  events_.published();
  drain();
  if (sync_wanted_ > durable_ && received_ > durable_) start_sync();
}

void Receiver::drain() {
  while (!held_ && !refuses() && !waiting_.empty()) {
    auto frame = decode_records(waiting_.front());
    if (!frame) return events_.failed(frame.error());
    if (!take(*frame)) return;
    waiting_bytes_ -= waiting_.front().size();
    waiting_.pop_front();
  }
}

void Receiver::go_on() {
  held_ = false;
  drain();
}

void Receiver::tick(std::int64_t now_ns) {
  if (!waiting_.empty()) drain();
  const bool full = full_since_ns_ != 0 && now_ns - full_since_ns_ >= kFullNotice;
  if (!full_told_ && (full || stuck(now_ns))) {
    full_told_ = true;
    events_.send_ack({received_, durable_, applied_, true});
  }
  const bool due = unsynced_since_ns_ != 0 && now_ns - unsynced_since_ns_ >= kSyncInterval;
  if (shown() ? due : now_ns >= show_again_ns_) start_sync();
}

std::int64_t Receiver::next_tick_ns() const {
  std::int64_t next = std::numeric_limits<std::int64_t>::max();
  if (!shown() && !syncing_)
    next = show_again_ns_;
  else if (unsynced_since_ns_ != 0 && !syncing_)
    next = unsynced_since_ns_ + kSyncInterval;
  if (!waiting_.empty() && !held_ && !refuses()) next = std::min(next, clock_.monotonic_ns() + kFullRetry);
  if (full_since_ns_ != 0 && !full_told_) next = std::min(next, full_since_ns_ + kFullNotice);
  if (syncing_ && !full_told_) next = std::min(next, sync_begun_ns_ + kSyncPatience);
  return next;
}

}  // namespace vmfs
