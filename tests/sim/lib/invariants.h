// The invariants (docs/ARCHITECTURE.md, by number) that can be seen from outside while a volume lives. Each check throws
// SimFailure with the invariant's number.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <tuple>

#include "fs/journal/record_reader.h"
#include "fs/volume/volume.h"
#include "tests/sim/lib/sim_disk.h"
#include "tests/sim/lib/volume_model.h"

namespace vmfs::sim {

// Invariant 3: one (epoch, seq) names one record, everywhere, for ever. Shared by all nodes of a
// run, and never forgets, whatever the nodes lose.
class RecordNames {
 public:
  void note(const RecordHeader& header);

 private:
  struct Content {
    RecordType type;
    std::uint64_t offset, extent, payload_hash;
    std::int64_t wall_ns;
    friend bool operator==(const Content&, const Content&) = default;
  };
  std::map<std::tuple<std::uint64_t, std::uint64_t, std::uint64_t>, Content> names_;
  // Where the record of a request is: a request that came twice was carried out once.
  struct Request {
    std::uint64_t connection, unique;
    RecordType type;
    std::uint64_t offset;
    friend auto operator<=>(const Request&, const Request&) = default;
  };
  std::map<Request, std::tuple<std::uint64_t, std::uint64_t, std::uint64_t>> requests_;
};

// Follows one life of a volume.
class VolumeInvariants {
 public:
  // on_record: called for each record that check_new_records() reads, with its end.
  using OnRecord = std::function<void(const RecordHeader&, ByteView payload, Lsn end)>;
  VolumeInvariants(Volume& volume, RecordNames& names, OnRecord on_record = {})
      : volume_(volume), names_(names), on_record_(std::move(on_record)) {}

  // 3, for what was written since the last call; and that a group's records follow one another.
  void check_new_records();
  // The journal's marks are in order, and within its limit.
  void check_journal() const;
  // Each group's history ends with the epoch it is in, and its entries join.
  void check_histories() const;
  // 1 and 2: what the store's files hold are bytes of records that are durable in the journal.
  // ends: for each change number, the end of its records.
  void check_store(SimDisk& store, const ModelState& now, const std::vector<Lsn>& ends) const;

 private:
  Volume& volume_;
  RecordNames& names_;
  OnRecord on_record_;
  std::unique_ptr<RecordReader> reader_;
  std::map<std::uint64_t, Position> last_;
};

// Invariant 6's half on one node: after a clean unmount an image is a plain file with exactly the
// bytes.
void check_plain_files(SimDisk& store, const ModelState& expected);

}  // namespace vmfs::sim
