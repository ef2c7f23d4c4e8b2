// What a journal is inside; split over append.cc (reserving, group commit), seal.cc (the end of a
// segment), sync.cc (durability, healing), space.cc (preparing and releasing), read.cc and recovery.
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "fs/journal/brief_lock.h"
#include "fs/journal/journal.h"
#include "fs/journal/recovery.h"
#include "fs/journal/segment.h"
#include "fs/journal/segment_scan.h"

namespace vmfs {

// A reservation on its way to the file. Slots are used in a ring, in the order of the log.
struct alignas(64) JournalSlot {
  std::atomic<std::uint64_t> filled{0};  // ticket + 1: the rest is complete
  const std::byte* payload = nullptr;
  Lsn next = 0;  // where the log goes on after this record
  // The bytes after the record (up to `next`) are left as they are, not written with zeros.
  bool leaves_gap = false;
  RecordHeader header;
};

// The lines of a segment's table, gathered while it fills.
struct SealTableBuffer {
  Bytes bytes;  // entries, then the trailer
  std::uint64_t entries = 0;
  Lsn free_after = 0;  // may be used again once this is written
  void add(const SealEntry& entry);
};

struct Journal::Impl {
  Impl(Disk& disk, Clock& clock, const JournalOptions& options, std::uint64_t segments_found);

  // --- append.cc
  static constexpr std::uint32_t kSlots = 4096;
  Result<> reserve_all(std::span<Draft> drafts, SequenceCursor* cursor,
                       std::span<Reservation> out);
  Reservation place(Draft& draft, SequenceCursor* cursor);
  void put_slot(const RecordHeader& header, const std::byte* payload, Lsn next, bool leaves_gap);
  void fill(Draft& draft, const Reservation& reservation, bool hashed);
  Result<> wait_written(const Reservation& reservation);
  Result<> wait_written(Lsn end);
  Result<bool> poll_written(const Reservation& reservation);
  bool try_become_writer();
  void stop_being_writer();
  void write_filled();
  bool next_is_filled() const;
  Result<> write_run(std::uint64_t first_ticket, std::uint64_t last_ticket);
  void publish_written(std::uint64_t tail, Lsn lsn);
  void write_alone(const Reservation& reservation);  // a known mistake, see fs/base/mistakes.h

  // --- seal.cc (reservation lock held)
  bool fits(Lsn next, std::uint64_t entries, std::uint64_t length) const;
  void add_entry(const RecordHeader& header);
  void seal();
  void pad_to_block();
  std::unique_ptr<SealTableBuffer> new_table();

  // --- sync.cc
  Result<> sync_through(Lsn lsn);
  Result<> sync_once();
  Result<> sync_segments(Lsn from, Lsn to);
  Result<> heal(const Error& why);
  void set_durable(Lsn lsn, std::int64_t began_ns);
  void die(const Error& why);

  // --- space.cc
  Result<bool> prepare_segments();
  Result<> room_for_a_file();
  // Makes segments ready up to `needed`. kNoSpace if the limit or the disk does not allow it.
  Result<> prepare_next(std::uint64_t needed);
  std::uint64_t prepared_through();
  Result<> release_through(Lsn lsn);
  void set_message(std::string text);

  // --- open.cc
  Result<> adopt(JournalFiles& files, FoundLog& log);
  Result<> begin_generation(const FoundLog& log);
  Result<> replay(const std::function<Result<>(Lsn lsn, const SealEntry& record)>& visit);

  // --- read.cc
  Result<bool> read(Lsn lsn, std::span<std::byte> out, Label label) const;

  // Constant after opening.
  Disk& disk;
  Clock& clock;
  const JournalOptions options;
  SegmentSet segments;
  const Geometry geometry;
  std::uint32_t generation = 0;
  std::function<void(Lsn)> on_durable;
  std::function<void()> on_space;
  std::function<void()> on_death;
  // What recovery found, for replay().
  Lsn replay_start = 0;
  std::vector<LogSegment> replay_segments;

  // --- Guarded by reservation_lock.
  alignas(64) BriefLock reservation_lock;
  Lsn next_lsn = 0;                   // where the next record starts
  std::uint64_t head = 0;             // ticket of the next slot
  std::uint64_t current = 0;          // number of the segment that next_lsn is in
  std::uint64_t ready_through = 0;    // segments up to this number have their files
  bool reserved_once = false;
  bool refusing = false;              // a sync failed and is not healed
  std::unique_ptr<SealTableBuffer> table;
  std::deque<std::unique_ptr<SealTableBuffer>> old_tables;  // being written, or free again
  std::atomic<Lsn> reserved{0};       // next_lsn, to be read without the lock

  // --- Guarded by being the writer.
  alignas(64) std::atomic<int> writer{0};
  std::array<iovec, 256> pieces;

  alignas(64) std::atomic<std::uint64_t> tail{0};  // ticket of the first slot not yet written
  std::atomic<Lsn> written{0};
  std::atomic<int> sleepers{0};
  std::atomic<int> wake{0};
  std::atomic<bool> dead{false};
  std::atomic<std::int64_t> unsynced_since{0};

  alignas(64) std::atomic<Lsn> durable{0};
  std::atomic<Lsn> oldest{0};  // start of the oldest live segment
  std::atomic<bool> failed{false};

  std::mutex sync_mutex;
  std::condition_variable sync_done;
  // Guarded by sync_mutex.
  bool syncing = false;
  std::uint64_t syncs_ended = 0;
  Result<> last_sync;

  std::mutex space_mutex;  // one prepares or releases at a time
  std::uint64_t next_to_retire = 0;  // guarded by space_mutex: number of the oldest file in use
  mutable std::mutex message_mutex;
  std::string message;

  std::deque<Bytes> mistaken_payloads;  // see write_alone()

  const std::unique_ptr<JournalSlot[]> slots;
};

}  // namespace vmfs
