// Reserving, and writing by group commit.
#include <fmt/format.h>

#include <cerrno>
#include <cstring>

#include "fs/base/check.h"
#include "fs/base/hash.h"
#include "fs/base/log.h"
#include "fs/base/mistakes.h"
#include "fs/journal/journal_impl.h"
#include "fs/journal/record_check.h"

namespace vmfs {
namespace {

// What follows a record up to where the log goes on, unless it leaves a gap: at most a pad's length;
// and the rest of a run's last block.
alignas(64) constexpr std::array<std::byte, 3 * kBlock> kZeros{};

// A run is bounded so that its first record need not wait long for its last.
constexpr std::size_t kRunBytes = 8u << 20;
// How long somebody spins for a write that another does: about as long as one takes. Sleeping and
// being woken costs more than ten times that.
constexpr int kSpins = 300;
// After so many runs, the writer lets another be the writer, so that its own caller gets on.
constexpr int kRunsMax = 32;

// These may use the last segment: without them a full journal could not be handed over or emptied.
bool may_use_last_segment(RecordType type) {
  switch (type) {
    case RecordType::kFlush:
    case RecordType::kEpoch:
    case RecordType::kReleased:
    case RecordType::kTaken:
    case RecordType::kBaseBegin:
    case RecordType::kBaseData:
    case RecordType::kBaseEnd:
      return true;
    default:
      return false;
  }
}

}  // namespace

Result<> Journal::Impl::reserve_all(std::span<Draft> drafts, SequenceCursor* cursor,
                                    std::span<Reservation> out) {
  CHECK_COMPARE(drafts.size(), <=, std::size_t{64});
  CHECK_COMPARE(drafts.size(), ==, out.size());
  bool urgent = true;
  const std::uint32_t most = vmfs::payload_max(options.segment_size);
  for (const Draft& draft : drafts) {
    urgent = urgent && may_use_last_segment(draft.header.type);
    if (draft.payload.size() > most) [[unlikely]]
      return fail(ErrorKind::kInvalid, EINVAL,
                  fmt::format("a payload of {} bytes is above this journal's limit of {}",
                              draft.payload.size(), most));
  }
  for (;;) {
    std::uint64_t needed;  // the segment in which the last one ends
    {
      std::lock_guard lock(reservation_lock);
      if (dead.load(std::memory_order_relaxed)) [[unlikely]]
        return fail(ErrorKind::kIo, EIO, "the journal failed and must be opened again");
      if (refusing) [[unlikely]]
        return fail(ErrorKind::kWouldWait, EAGAIN);
      needed = current;
      Lsn next = next_lsn;
      std::uint64_t entries = table->entries;
      for (const Draft& draft : drafts) {
        std::uint64_t length = record_size(static_cast<std::uint32_t>(draft.payload.size()));
        if (!fits(next, entries + 1, length)) {
          next = geometry.first_record(++needed);
          entries = 0;
        }
        next += length;
        ++entries;
      }
      std::uint64_t last_allowed = geometry.number(oldest.load(std::memory_order_relaxed)) +
                                   segments.count_max() - (urgent ? 1 : 2);
      if (needed > last_allowed) [[unlikely]]
        return fail(ErrorKind::kWouldWait, EAGAIN);
      // A pad and a seal for each, at worst.
      bool room = head + 3 * drafts.size() + 4 - tail.load(std::memory_order_acquire) <= kSlots;
      if (needed <= ready_through && room) [[likely]] {
        reserved_once = true;
        for (std::size_t i = 0; i < drafts.size(); ++i) out[i] = place(drafts[i], cursor);
        reserved.store(next_lsn, std::memory_order_release);
        return {};
      }
    }
    if (std::uint64_t ready = prepared_through(); needed > ready) {
      if (auto prepared = prepare_next(needed); !prepared) {
        // Not a full journal, but a full or failing disk: the same for the caller, said in state().
        set_message(prepared.error().message);
        return fail(ErrorKind::kWouldWait, EAGAIN);
      }
      continue;
    }
    // All slots are taken by reservations of other threads: help to write them.
    if (try_become_writer()) {
      write_filled();
      stop_being_writer();
    }
    cpu_relax();
  }
}

Journal::Reservation Journal::Impl::place(Draft& draft, SequenceCursor* cursor) {
  RecordHeader& header = draft.header;
  header.payload_size = static_cast<std::uint32_t>(draft.payload.size());
  std::uint64_t length = record_size(header.payload_size);
  if (!fits(next_lsn, table->entries + 1, length)) [[unlikely]]
    seal();
  header.magic = kRecordMagic;
  header.reserved0 = 0;
  header.reserved1 = 0;
  header.lsn = next_lsn;
  header.durable = durable.load(std::memory_order_relaxed);
  header.generation = generation;
  if (cursor) {
    header.epoch = raw(cursor->epoch);
    header.seq = ++cursor->seq;
    if (cursor->trail) cursor->trail->note(header.seq, length, header.wall_ns, is_housekeeping(header.type));
  }
  add_entry(header);
  JournalSlot& slot = slots[head % kSlots];
  slot.header.lsn = next_lsn;
  slot.next = next_lsn + length;
  slot.leaves_gap = false;
  Reservation reservation{next_lsn, slot.next, static_cast<std::uint32_t>(head)};
  next_lsn = slot.next;
  ++head;
  return reservation;
}

void Journal::Impl::put_slot(const RecordHeader& header, const std::byte* payload, Lsn next,
                             bool leaves_gap) {
  JournalSlot& slot = slots[head % kSlots];
  slot.header = header;
  slot.payload = payload;
  slot.next = next;
  slot.leaves_gap = leaves_gap;
  slot.filled.store(head + 1, std::memory_order_seq_cst);
  next_lsn = next;
  ++head;
}

void Journal::Impl::fill(Draft& draft, const Reservation& reservation, bool hashed) {
  if (!hashed || draft.header.payload_hash == 0) draft.header.payload_hash = hash64(draft.payload);
  JournalSlot& slot = slots[reservation.slot % kSlots];
  slot.header = draft.header;
  slot.payload = draft.payload.data();
  // The reservation has the low half of its ticket; it is not below the tail, nor far above.
  std::uint64_t low = tail.load(std::memory_order_acquire);
  std::uint64_t ticket = low + static_cast<std::uint32_t>(reservation.slot -
                                                          static_cast<std::uint32_t>(low));
  slot.filled.store(ticket + 1, std::memory_order_seq_cst);
}

bool Journal::Impl::try_become_writer() {
  return writer.load(std::memory_order_relaxed) == 0 &&
         writer.exchange(1, std::memory_order_seq_cst) == 0;
}

// Whoever filled a slot and found a writer at work relies on that writer, or on whom it wakes.
void Journal::Impl::stop_being_writer() {
  writer.store(0, std::memory_order_seq_cst);
  if (next_is_filled() && sleepers.load(std::memory_order_seq_cst) > 0) {
    wake.fetch_add(1, std::memory_order_seq_cst);
    wake.notify_all();
  }
}

bool Journal::Impl::next_is_filled() const {
  std::uint64_t ticket = tail.load(std::memory_order_seq_cst);
  return slots[ticket % kSlots].filled.load(std::memory_order_seq_cst) == ticket + 1;
}

void Journal::Impl::write_filled() {
  for (int runs = 0; runs < kRunsMax && !dead.load(std::memory_order_relaxed); ++runs) {
    const std::uint64_t first = tail.load(std::memory_order_relaxed);
    std::uint64_t last = first;
    Lsn run_start = 0;
    // Three pieces a record; what lies beyond a gap or in another segment is another run.
    while (last - first < pieces.size() / 3) {
      const JournalSlot& slot = slots[last % kSlots];
      if (slot.filled.load(std::memory_order_seq_cst) != last + 1) break;
      if (last == first) run_start = slot.header.lsn;
      ++last;
      if (slot.leaves_gap || slot.next - run_start > kRunBytes) break;
    }
    if (last == first) return;
    auto wrote = write_run(first, last);
    if (!wrote) [[unlikely]] {
      log_error("journal: {}", wrote.error().message);
      auto healed = heal(wrote.error());
      if (healed) healed = write_run(first, last);
      if (!healed) return die(healed.error());
    }
    publish_written(last, slots[(last - 1) % kSlots].next);
  }
}

Result<> Journal::Impl::write_run(std::uint64_t first, std::uint64_t last) {
  const Lsn start = slots[first % kSlots].header.lsn;
  const std::uint64_t number = geometry.number(start);
  const std::uint64_t incarnation = segments.incarnation(number);
  std::size_t count = 0;
  for (std::uint64_t ticket = first; ticket != last; ++ticket) {
    JournalSlot& slot = slots[ticket % kSlots];
    // Only here is it certain which file takes the record: healing may have replaced it.
    slot.header.header_hash = hash_of(slot.header, incarnation);
    pieces[count++] = {&slot.header, sizeof slot.header};
    if (slot.header.payload_size > 0)
      pieces[count++] = {const_cast<std::byte*>(slot.payload), slot.header.payload_size};
    std::uint64_t rest =
        slot.next - slot.header.lsn - sizeof(RecordHeader) - slot.header.payload_size;
    if (slot.leaves_gap) continue;
    // The last block of a run is filled up with zeros, over which the next run writes: so each block is
    // first touched by a write that covers it. Else the kernel would have to read the rest of it from
    // the disk whenever the segment has left the page cache, which costs a hundred times the write.
    if (ticket + 1 == last) rest += align_to_block(slot.next) - slot.next;
    if (rest > 0) {
      CHECK_COMPARE(rest, <=, kZeros.size());
      pieces[count++] = {const_cast<std::byte*>(kZeros.data()), static_cast<std::size_t>(rest)};
    }
  }
  return segments.file(number).write_pieces({pieces.data(), count}, geometry.offset(start),
                                            "journal.append");
}

void Journal::Impl::publish_written(std::uint64_t new_tail, Lsn lsn) {
  written.store(lsn, std::memory_order_seq_cst);
  // In this order: a sync that ends now says 0, and then looks at `written`.
  if (unsynced_since.load(std::memory_order_seq_cst) == 0)
    unsynced_since.store(clock.monotonic_ns(), std::memory_order_seq_cst);
  // After `written`: a slot is used again only when its reservation is seen to be written.
  tail.store(new_tail, std::memory_order_seq_cst);
  if (sleepers.load(std::memory_order_seq_cst) > 0) {
    wake.fetch_add(1, std::memory_order_seq_cst);
    wake.notify_all();
  }
}

Result<> Journal::Impl::wait_written(Lsn end) {
  int spins = 0;
  for (;;) {
    if (written.load(std::memory_order_acquire) >= end) [[likely]] return {};
    if (dead.load(std::memory_order_acquire)) [[unlikely]]
      return fail(ErrorKind::kIo, EIO, "the journal failed; the change may be lost");
    if (next_is_filled() && try_become_writer()) {
      write_filled();
      stop_being_writer();
      continue;
    }
    if (++spins < kSpins) {
      cpu_relax();
      continue;
    }
    sleepers.fetch_add(1, std::memory_order_seq_cst);
    int token = wake.load(std::memory_order_seq_cst);
    bool writable = next_is_filled() && writer.load(std::memory_order_seq_cst) == 0;
    if (written.load(std::memory_order_seq_cst) < end && !writable &&
        !dead.load(std::memory_order_seq_cst))
      wake.wait(token, std::memory_order_seq_cst);
    sleepers.fetch_sub(1, std::memory_order_seq_cst);
  }
}

Result<> Journal::Impl::wait_written(const Reservation& reservation) {
  if (mistakes.acknowledge_early) [[unlikely]] {
    write_alone(reservation);
    return {};
  }
  return wait_written(reservation.end);
}

Result<bool> Journal::Impl::poll_written(const Reservation& reservation) {
  if (written.load(std::memory_order_acquire) >= reservation.end) return true;
  if (mistakes.acknowledge_early) [[unlikely]] {
    write_alone(reservation);
    return true;
  }
  if (dead.load(std::memory_order_acquire))
    return fail(ErrorKind::kIo, EIO, "the journal failed; the change may be lost");
  if (next_is_filled() && try_become_writer()) {
    write_filled();
    stop_being_writer();
  }
  return written.load(std::memory_order_acquire) >= reservation.end;
}

void Journal::Impl::write_alone(const Reservation& reservation) {
  while (!try_become_writer()) cpu_relax();
  JournalSlot& slot = slots[reservation.slot % kSlots];
  if (written.load(std::memory_order_acquire) < reservation.end) {
    std::uint64_t number = geometry.number(reservation.lsn);
    slot.header.header_hash = hash_of(slot.header, segments.incarnation(number));
    // The writer comes by again when the earlier ones are there; the caller's buffer is gone by then.
    ByteView payload{slot.payload, slot.header.payload_size};
    mistaken_payloads.emplace_back(payload.begin(), payload.end());
    slot.payload = mistaken_payloads.back().data();
    Bytes record(sizeof slot.header);
    std::memcpy(record.data(), &slot.header, sizeof slot.header);
    record.insert(record.end(), payload.begin(), payload.end());
    (void)segments.file(number).write(record, geometry.offset(reservation.lsn), "journal.append");
  }
  stop_being_writer();
}

}  // namespace vmfs
