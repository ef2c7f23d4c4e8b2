// Walks a live journal from a place on, while others append: for the sender.
#pragma once

#include <functional>
#include <optional>

#include "fs/journal/journal.h"

namespace vmfs {

struct RecordView {
  RecordHeader header;
  ByteView payload;  // valid until the next call; empty if it was not wanted
};

// Not thread-safe; one per reader. Reads through a buffer of a few MiB (which it owns), sequentially.
class RecordReader {
 public:
  // Starts with the first record at or after `start` (0: the oldest there is), which may be any LSN.
  RecordReader(const Journal& journal, Lsn start);
  ~RecordReader();
  // The next record that lies wholly below `limit` (at most journal.written_lsn()); nothing: none
  // yet. The journal's own records (pad, seal) are passed over. kNotFound: the place was recycled.
  // kCorrupt: header or payload fail their checksum (both are verified). A payload that is not wanted is not looked at.
  using Wanted = std::function<bool(const RecordHeader&)>;
  Result<std::optional<RecordView>> next(Lsn limit, const Wanted& payload_wanted = {});
  // Where the next call goes on.
  Lsn position() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace vmfs
