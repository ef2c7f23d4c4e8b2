#include "net/replication/sender.h"

#include <algorithm>

#include "fs/base/hash.h"
#include "fs/base/log.h"

namespace vmfs {

Sender::Sender(Volume& volume, Clock& clock, Events& events, Lsn from)
    : volume_(volume),
      clock_(clock),
      events_(events),
      positions_([&volume](GroupId group) { return volume.group(group); }) {
  Lsn oldest = volume.journal().oldest_lsn();
  rescanned_ = from <= oldest;
  position_ = received_ = durable_ = applied_ = std::max(from, oldest);
  reader_ = std::make_unique<RecordReader>(volume.journal(), position_);
}

void Sender::begin() {
  bool lost_its_own = false;
  for (const GroupState& state : volume_.groups()) {
    auto held = positions_.position(state.id);
    if (!held || positions_.stopped(state.id)) continue;
    if (held->seq < state.recycled.seq) {
      positions_.stop(state.id);
      events_.needs_copy(state.id, "the journal space of what it lacks was reused");
      continue;
    }
    // Of its own records, or of those that it had confirmed.
    const bool behind = held->seq < state.seq;
    lost_its_own |= behind && (state.owner != volume_.node() || volume_.last_record(state.id) <= position_);
  }
  // What came from the peer never had to be shipped, and so the hint is past it; but the peer has lost it
  // with its power and wants its own tail back. Or its disk has lost what it had said was durable.
  const Lsn oldest = volume_.journal().oldest_lsn();
  if (lost_its_own && position_ > oldest) {
    position_ = received_ = durable_ = applied_ = oldest;
    reader_ = std::make_unique<RecordReader>(volume_.journal(), oldest);
  }
}

bool Sender::has_room() const {
  return in_flight_ < kWindow && events_.unsent_bytes() < kLinkQueue;
}

// The hint was wrong, or the journal went on without us: from its oldest record on.
void Sender::rescan() {
  rescanned_ = true;
  go_back(volume_.journal().oldest_lsn());
  begin();
}

void Sender::look_back(Lsn from) {
  from = std::max(from, volume_.journal().oldest_lsn());
  if (from < position_) go_back(from);
}

void Sender::go_back(Lsn to) {
  position_ = received_ = durable_ = applied_ = to;
  unapplied_.clear();
  for (InFlight& frame : in_flight_frames_) frame.through = position_;
  reader_ = std::make_unique<RecordReader>(volume_.journal(), position_);
}

void Sender::gap(GroupId group) {
  positions_.stop(group);
  events_.needs_copy(group, "the journal does not hold what it lacks");
}

Result<> Sender::pump(Lsn limit, bool sync_now, int compression) {
  if (held_) return {};
  limit = std::min(limit, volume_.journal().written_lsn());
  // What came from the peer is all that a secondary's journal holds: its payloads are not read again.
  const RecordReader::Wanted wanted = [this](const RecordHeader& header) { return !positions_.passes(header); };
  while (position_ < limit && has_room()) {
    auto record = reader_->next(limit, wanted);
    if (!record) {
      if (record.error().kind != ErrorKind::kNotFound) return pass(record.error());
      ship_frame(false, compression);
      rescan();
      continue;
    }
    if (!*record) {
      // Nothing but the journal's own records up to there.
      position_ = std::max(position_, limit);
      break;
    }
    const RecordHeader& header = (*record)->header;
    switch (positions_.step(header, (*record)->payload)) {
      case StreamPosition::Step::kShip: {
        encoder_.add(header, (*record)->payload);
        GroupId group{header.group};
        Position last{EpochId{header.epoch}, header.seq};
        if (!encoder_last_.empty() && encoder_last_.back().first == group)
          encoder_last_.back().second = last;
        else
          encoder_last_.emplace_back(group, last);
        break;
      }
      case StreamPosition::Step::kSkip: break;
      case StreamPosition::Step::kGap:
        if (!rescanned_) {
          ship_frame(false, compression);
          rescan();
          continue;
        }
        gap(GroupId{header.group});
        break;
    }
    position_ = std::max(position_, reader_->position());
    if (encoder_.raw_bytes() >= kRecordsFrameBytes) {
      ship_frame(false, compression);
    }
  }
  if (encoder_.count() != 0) {
    ship_frame(sync_now, compression);
  } else if (sync_now && !in_flight_frames_.empty() && sync_requested_number_ < last_number_) {
    sync_requested_number_ = last_number_;
    events_.send_frame(encode_message(FlushRequest{last_number_}));
  }
  settle();
  return {};
}

void Sender::ship_frame(bool sync_now, int compression) {
  if (encoder_.count() == 0) return;
  // What did not shrink will hardly shrink in the next frame: look again after a few.
  int level = compression;
  if (incompressible_ > 0 && level != 0) {
    --incompressible_;
    level = 0;
  }
  std::size_t raw = encoder_.raw_bytes();
  Bytes frame = encoder_.finish(++last_number_, sync_now, level);
  if (sync_now) sync_requested_number_ = last_number_;
  if (level != 0 && raw >= RecordsEncoder::kCompressedLeast && frame.size() > raw) incompressible_ = 8;
  InFlight sent;
  sent.number = last_number_;
  sent.through = position_;
  sent.bytes = frame.size();
  sent.sent_ns = clock_.monotonic_ns();
  sent.last = std::move(encoder_last_);
  encoder_last_.clear();
  in_flight_ += sent.bytes;
  bytes_sent_ += sent.bytes;
  in_flight_frames_.push_back(std::move(sent));
  events_.send_frame(std::move(frame));
}

void Sender::inject(const RecordHeader& header, ByteView payload, int compression) {
  RecordHeader copy = header;
  copy.payload_size = static_cast<std::uint32_t>(payload.size());
  copy.payload_hash = hash64(payload);
  encoder_.add(copy, payload);
  GroupId group{header.group};
  if (header.type == RecordType::kBaseBegin) incomplete(group);
  ship_frame(false, compression);
  if (header.type == RecordType::kBaseEnd) {
    InFlight& end = in_flight_frames_.back();
    end.copied = group;
    end.last.emplace_back(group, Position{EpochId{header.epoch}, header.seq});
  }
}

bool Sender::acknowledged(const Ack& ack) {
  if (ack.received > last_number_) return false;
  for (InFlight& frame : in_flight_frames_) {
    if (frame.received || frame.number > ack.received) continue;
    frame.received = true;
    in_flight_ -= frame.bytes;
    received_ = std::max(received_, frame.through);
  }
  while (!in_flight_frames_.empty() && in_flight_frames_.front().received &&
         in_flight_frames_.front().number <= ack.durable) {
    InFlight& frame = in_flight_frames_.front();
    if (raw(frame.copied) != 0) incomplete_.erase(frame.copied);
    for (const auto& [group, position] : frame.last)
      if (!incomplete_.contains(group)) durable_positions_[group] = position;
    durable_ = std::max(durable_, frame.through);
    note_unapplied(frame.number, frame.through);
    in_flight_frames_.pop_front();
  }
  while (!unapplied_.empty() && unapplied_.front().number <= ack.applied) {
    applied_ = std::max(applied_, unapplied_.front().through);
    unapplied_.pop_front();
  }
  settle();
  return true;
}

// What is applied a little later does not matter: neighbours share an entry, so that there are few.
void Sender::note_unapplied(std::uint64_t number, Lsn through) {
  constexpr std::uint64_t kGrain = 256u << 10;
  if (!unapplied_.empty() && through < unapplied_.back().from + kGrain) {
    unapplied_.back().number = number;
    unapplied_.back().through = through;
  } else {
    unapplied_.push_back({number, unapplied_.empty() ? applied_ : unapplied_.back().through, through});
  }
}

// With nothing on its way, what was passed over counts as confirmed too.
void Sender::settle() {
  if (encoder_.count() != 0) return;
  if (in_flight_ == 0) received_ = std::max(received_, position_);
  if (in_flight_frames_.empty()) durable_ = std::max(durable_, position_);
  if (unapplied_.empty() && in_flight_frames_.empty()) applied_ = std::max(applied_, position_);
}

std::optional<Position> Sender::durable_position(GroupId group) const {
  auto it = durable_positions_.find(group);
  if (it == durable_positions_.end()) return std::nullopt;
  return it->second;
}

std::int64_t Sender::lag_ns(std::int64_t now_ns) const {
  if (in_flight_frames_.empty()) return 0;
  return now_ns - in_flight_frames_.front().sent_ns;
}

}  // namespace vmfs
