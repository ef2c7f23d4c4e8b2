// The node's one ordered, checksummed sequence of records. See format.h for what it looks like on
// disk and docs/JOURNAL.md for why.
//
// Appending and making durable are two facts (as in logcabin's Storage/Log.h): append() returns when
// the record and all before it are in the file (they survive this process), sync_through() when they
// are on the medium (they survive the machine).
//
// Threads: everything is thread-safe unless it says otherwise. Nobody hands work to another thread:
// reserve() is a few instructions under a short lock, and the first of commit()'s callers that finds
// no writer at work writes the whole contiguous run of filled reservations with one pwritev; the
// others spin briefly, then sleep.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "fs/base/ids.h"
#include "fs/base/result.h"
#include "fs/journal/format.h"
#include "fs/journal/sequence_trail.h"
#include "fs/seam/clock.h"
#include "fs/seam/disk.h"

namespace vmfs {

struct JournalOptions {
  VolumeId volume{};
  NodeId node{};
  std::uint64_t segment_size = 64u << 20;  // bytes; a power of two, at least 1 MiB
  std::uint64_t size_max = 1u << 30;       // bytes on disk; at least four segments
  // create() writes all segments at once, so that the journal can never meet a full disk. Otherwise
  // they come to be as they are needed.
  bool whole_at_creation = false;
};

// Where a group stands: the next record gets seq + 1 in `epoch`. Changed only inside reserve(),
// under the journal's reservation lock, or through Journal::with_reservations_locked().
struct SequenceCursor {
  EpochId epoch{};
  std::uint64_t seq = 0;
  SequenceTrail* trail = nullptr;  // keeps an account of the records, if there is one

  void move_to(const Position& position) {
    epoch = position.epoch;
    seq = position.seq;
  }
};

// What to append. The caller fills type, flags, group, offset, extent, wall_ns, connection, unique;
// the journal the rest. The payload must stay unchanged until commit() returned.
struct Draft {
  RecordHeader header;
  ByteView payload;
};

class Journal {
 public:
  // An empty journal in the disk's root directory, which must hold no segment. Durable on return.
  static Result<> create(Disk& disk, const JournalOptions& options);

  // Opens and recovers: finds the valid end, tells a torn tail (normal) from damage (an error that
  // names segment, offset and the ways out), starts a new generation, and makes durable what it found,
  // so that everything that replay() then yields is on disk. That it reads back well does not say so: what no
  // record claims to be durable is written again before it is synced, into new segments if a sync
  // is known to have failed (the marker file "sync-failed"). Changes nothing when it fails.
  //   start: where replay begins, as the last checkpoint said (0: the oldest segment there is).
  struct OpenArguments {
    Lsn start = 0;
    //   quick: the machine did not stop, only this process did: sealed segments are taken by their
    //   tables without verifying payloads. Else everything from start on is verified.
    bool quick = false;
    //   generation: of the life that found `start`; the new one is above it, also when nothing follows
    //   `start`, or the records of the new life would look older than those before `start`.
    std::uint32_t generation = 0;
  };
  static Result<std::unique_ptr<Journal>> open(Disk& disk, Clock& clock,
                                               const JournalOptions& options,
                                               const OpenArguments& arguments);
  ~Journal();

  // Cuts the log off: the records that end at or below `until` stay, what comes after them is moved,
  // segment by segment, to `cut-<time>/` in the journal's directory (its name is returned), and the
  // journal opens again. For `vmfs recover STORE --until LSN`, when the middle of the log is damaged.
  // kInvalid, and nothing is changed, if `until` is below `start` (what the store already has cannot
  // be taken back) or if the log is not whole up to there. Not while the journal is open.
  static Result<std::string> cut(Disk& disk, Clock& clock, const JournalOptions& options, Lsn start,
                                 Lsn until);

  // --- Appending -----------------------------------------------------------------------------

  // The largest payload that reserve() takes: kPayloadMax, less in a journal of segments below 4 MiB.
  std::uint32_t payload_max() const { return vmfs::payload_max(options().segment_size); }

  // A place in the log and in its group's sequence; must be committed, soon, by the same thread or
  // another; nothing after it is acknowledged before.
  struct Reservation {
    Lsn lsn = 0;
    Lsn end = 0;  // first byte after the record
    std::uint32_t slot = 0;
  };
  // Assigns lsn, epoch, seq (cursor.seq + 1; `cursor` may be null for the journal's own and base
  // records: then header.epoch and seq are taken as they stand), durable and generation in the draft.
  // kWouldWait when the journal is full, or while a failed sync is not healed (wait for on_space).
  // Records of `Draft::header.type` kEpoch,
  // kTaken, kReleased, kBase* and flushes may use the last segment, which others leave free, so that
  // a full journal can still be handed over and checkpointed.
  Result<Reservation> reserve(Draft& draft, SequenceCursor* cursor);
  // Reserves several drafts with nothing in between. At most 64. All or none. kInvalid: a payload exceeds payload_max().
  Result<> reserve_all(std::span<Draft> drafts, SequenceCursor* cursor, std::span<Reservation> out);
  // Hashes the payload (unless header.payload_hash is already set and `hashed`), finishes the header
  // and returns when everything up to reservation.end is written. While a failed sync or write is
  // being healed, it waits. An error means that the record is not acknowledged (whether it is there
  // after the next recovery is open) and that this journal accepts nothing more: state().dead.
  Result<> commit(Draft& draft, const Reservation& reservation, bool hashed = false);
  // The same in two steps, for a single-threaded simulation: fill, then poll until true.
  void fill(Draft& draft, const Reservation& reservation, bool hashed = false);
  Result<bool> poll_written(const Reservation& reservation);

  // Reserve and commit in one.
  Result<Reservation> append(Draft& draft, SequenceCursor* cursor);

  // Runs `f` while no reservation can happen.
  void with_reservations_locked(const std::function<void()>& f);

  // --- Durability ----------------------------------------------------------------------------

  // Returns once all records below `lsn` (at most reserved_lsn()) are durable; many callers share one
  // fdatasync. A failed sync is remembered on disk and healed by writing the unconfirmed tail again
  // into a replacement of its segment (the LSNs stay); only if that fails too does this return an
  // error. Nothing is acknowledged until a later call succeeds.
  Result<> sync_through(Lsn lsn);

  Lsn reserved_lsn() const;  // where the next record will start
  Lsn written_lsn() const;
  Lsn durable_lsn() const;
  // Written bytes that are not durable and how long the oldest of them has waited (ns, 0: none).
  std::uint64_t unsynced_bytes() const;
  std::int64_t unsynced_since_ns() const;

  // Called after durable_lsn() grew, on the thread that synced, with no lock held. Set before use.
  void on_durable(std::function<void(Lsn)> callback);
  // Called after space became free for reserve(), likewise.
  void on_space(std::function<void()> callback);
  // Called when the journal can take nothing more until it is opened again (state().dead), before anybody
  // is told: it need not return. A process that ends here has left no request with a wrong answer. May be
  // called with a lock of the journal held. Set before use.
  void on_death(std::function<void()> callback);

  // --- Reading -------------------------------------------------------------------------------

  // Copies payload bytes: `lsn` is that of the payload byte (record lsn + sizeof(RecordHeader) + n).
  // The bytes lie in one record. False if that place has been recycled since the caller looked it up:
  // look up again. Does not verify: the bytes are as this process wrote them or as recovery found them valid.
  Result<bool> read_payload(Lsn lsn, std::span<std::byte> out) const;

  // Whole records, in order: see record_reader.h.
  friend class RecordReader;

  // Calls `visit` for each record from OpenArguments::start to the end that recovery found, oldest
  // first; from the tables of sealed segments where there are, so payloads are not read: visit reads
  // what it wants with read_payload(). Stops at the first error that visit returns. Only before the
  // first reserve().
  Result<> replay(const std::function<Result<>(Lsn lsn, const SealEntry& record)>& visit);

  // --- Space ---------------------------------------------------------------------------------

  // Everything below is reused once it is durable in the store and no peer needs it: segments wholly
  // below `lsn` are recycled. Never moves back. The caller has made the checkpoint durable.
  Result<> release_through(Lsn lsn);
  Lsn oldest_lsn() const;               // start of the oldest live segment
  std::uint64_t bytes_used() const;     // from oldest_lsn() to the end
  std::uint64_t bytes_max() const { return options().size_max; }
  // Makes the segments that will be needed next (zero-filled, synced); does nothing if there are
  // enough. Called by a background thread; may take long. True if it made one: call it again.
  Result<bool> prepare_segments();

  std::uint32_t generation() const;  // counts this journal's recoveries: no two opens have the same
  const JournalOptions& options() const;

  struct State {
    bool failed = false;   // a sync or write failed and is not healed: nothing is acknowledged
    bool dead = false;     // ... nor will it be until the journal is opened again
    std::string message;   // object and evidence; also set when only a new segment could not be made
  };
  State state() const;

  struct Impl;

 private:
  explicit Journal(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace vmfs
