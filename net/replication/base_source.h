// Copies whole groups, or ranges of them, to one peer, through the stream: see Volume::base_image for
// the order that makes a copy of a changing group come out consistent. One group at a time, the name
// space first.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "fs/volume/volume.h"
#include "net/replication/sender.h"
#include "net/seam/shell.h"

namespace vmfs {

struct BaseJob {
  GroupId group{};
  bool whole = true;
  Position common;                // with ranges: the rest of the target's content is as of here
  std::vector<BaseRange> ranges;  // what the target changed since
};

class BaseSource {
 public:
  struct Events {
    virtual ~Events() = default;
    // The first record of a copy, of the whole group or of ranges, is in the stream.
    virtual void copy_begun(GroupId group, bool whole) = 0;
    // The stream may go on (it was held while a block was read).
    virtual void copy_advanced() = 0;
    // The last record of the copy is in the stream, or the copy cannot be made.
    virtual void copy_finished(GroupId group, Result<> result) = 0;
  };

  BaseSource(Volume& volume, Shell& shell, Clock& clock, Sender& sender, Events& events,
             std::function<int()> compression);
  ~BaseSource();

  // Queues a copy; replaces a queued one of the same group. One that is under way begins again, whole: what
  // the journal had to add to it was reused meanwhile.
  void add(BaseJob job);
  // Does what can be done now: to be called when there is room, or records were shipped.
  void advance();
  bool busy() const { return step_ != Step::kIdle || !queue_.empty(); }
  bool has(GroupId group) const;
  std::uint64_t bytes_done() const { return bytes_done_; }
  std::uint64_t bytes_total() const { return bytes_total_; }

 private:
  enum class Step : std::uint8_t { kIdle, kPreparing, kCopying, kReading, kMeasuring, kEnding };
  struct Work;
  void prepare();
  void begin();
  void read();
  void send_block();
  void measure();
  void finish(Result<> result);
  void begin_again();
  RecordHeader header(RecordType type, Position position) const;
  void blocking(std::function<void(Work&)> work, std::function<void()> done);

  Volume& volume_;
  Shell& shell_;
  Clock& clock_;
  Sender& sender_;
  Events& events_;
  std::function<int()> compression_;
  std::shared_ptr<bool> alive_;
  std::deque<BaseJob> queue_;
  Step step_ = Step::kIdle;
  std::shared_ptr<Work> work_;  // of the present job; used by one thread at a time
  std::uint64_t bytes_done_ = 0, bytes_total_ = 0;
};

// The union of two sets of ranges, ascending and without overlap.
std::vector<BaseRange> merge_ranges(std::vector<BaseRange> a, const std::vector<BaseRange>& b);
// At most `most` ranges that cover these (ascending, without overlap): neighbours grow together, since a
// little more that is copied costs less than copying all.
std::vector<BaseRange> coarsen_ranges(std::vector<BaseRange> ranges, std::size_t most);

}  // namespace vmfs
