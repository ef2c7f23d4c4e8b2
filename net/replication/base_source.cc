#include "net/replication/base_source.h"

#include <algorithm>

#include "fs/base/log.h"

namespace vmfs {
namespace {

// Bytes in one record: what the journal with the smallest segments takes, and little enough that the
// stream stands still only briefly while they are read.
constexpr std::uint64_t kBlockBytes = 256u << 10;

}  // namespace

struct BaseSource::Work {
  BaseJob job;
  Volume::BaseImage image;
  std::vector<BaseObject> names;
  std::size_t names_sent = 0;
  std::size_t range = 0;       // index in job.ranges
  std::uint64_t offset = 0;    // where to look for data next
  BaseRange block;             // what was read
  Bytes bytes;
  bool complete = false;       // no more data
  bool again = false;          // see add()
  Lsn from = 0;                // records after the copy's position lie behind this
  Position end;
  Result<> result;
};

std::vector<BaseRange> merge_ranges(std::vector<BaseRange> a, const std::vector<BaseRange>& b) {
  a.insert(a.end(), b.begin(), b.end());
  std::sort(a.begin(), a.end(),
            [](const BaseRange& x, const BaseRange& y) { return x.offset < y.offset; });
  std::vector<BaseRange> out;
  for (const BaseRange& range : a) {
    if (range.length == 0) continue;
    if (!out.empty() && range.offset <= out.back().offset + out.back().length) {
      std::uint64_t end =
          std::max(out.back().offset + out.back().length, range.offset + range.length);
      out.back().length = end - out.back().offset;
    } else {
      out.push_back(range);
    }
  }
  return out;
}

std::vector<BaseRange> coarsen_ranges(std::vector<BaseRange> ranges, std::size_t most) {
  for (std::uint64_t grain = 64u << 10; ranges.size() > most; grain *= 2) {
    for (BaseRange& range : ranges) {
      std::uint64_t end = (range.offset + range.length + grain - 1) / grain * grain;
      range.offset = range.offset / grain * grain;
      range.length = end - range.offset;
    }
    ranges = merge_ranges(std::move(ranges), {});
  }
  return ranges;
}

BaseSource::BaseSource(Volume& volume, Shell& shell, Clock& clock, Sender& sender, Events& events,
                       std::function<int()> compression)
    : volume_(volume),
      shell_(shell),
      clock_(clock),
      sender_(sender),
      events_(events),
      compression_(std::move(compression)),
      alive_(std::make_shared<bool>(true)) {}

BaseSource::~BaseSource() { *alive_ = false; }

bool BaseSource::has(GroupId group) const {
  if (step_ != Step::kIdle && work_->job.group == group) return true;
  return std::any_of(queue_.begin(), queue_.end(),
                     [group](const BaseJob& job) { return job.group == group; });
}

void BaseSource::add(BaseJob job) {
  if (step_ != Step::kIdle && work_->job.group == job.group) {
    work_->again = true;
    return;
  }
  std::erase_if(queue_, [&](const BaseJob& other) { return other.group == job.group; });
  if (job.group == kNameSpace)
    queue_.push_front(std::move(job));
  else
    queue_.push_back(std::move(job));
}

void BaseSource::blocking(std::function<void(Work&)> work, std::function<void()> done) {
  shell_.run_blocking(
      Shell::Lane::kCopy, [work = std::move(work), on = work_] { work(*on); },
      [alive = alive_, done = std::move(done)] {
        if (*alive) done();
      });
}

void BaseSource::advance() {
  if ((step_ == Step::kCopying || step_ == Step::kEnding) && work_->again) begin_again();
  switch (step_) {
    case Step::kIdle:
      if (!queue_.empty()) prepare();
      return;
    case Step::kCopying:
      if (sender_.has_room()) read();
      return;
    case Step::kEnding: {
      auto shipped = sender_.positions().position(work_->job.group);
      // Deleted meanwhile: the deletion is in the stream.
      if (!shipped) return finish({});
      if (shipped->seq < work_->end.seq) return;
      sender_.inject(header(RecordType::kBaseEnd, work_->end), {}, compression_());
      return finish({});
    }
    case Step::kPreparing:
    case Step::kReading:
    case Step::kMeasuring: return;  // work is under way
  }
}

void BaseSource::prepare() {
  step_ = Step::kPreparing;
  work_ = std::make_shared<Work>();
  work_->job = std::move(queue_.front());
  queue_.pop_front();
  work_->from = volume_.journal().written_lsn();
  blocking(
      [&volume = volume_](Work& work) {
        BaseJob& job = work.job;
        auto image = volume.base_image(job.group);
        if (!image) {
          work.result = pass(image.error());
          return;
        }
        work.image = std::move(*image);
        if (job.group == kNameSpace) {
          job.whole = true;
          auto names = volume.base_names();
          if (names)
            work.names = std::move(*names);
          else
            work.result = pass(names.error());
          return;
        }
        if (job.whole) return;
        // What either side changed since they parted.
        auto here = volume.touched_since(job.group, job.common);
        if (!here)
          work.result = pass(here.error());
        else if (!here->ranges)
          job.whole = true;
        else
          job.ranges = merge_ranges(std::move(job.ranges), *here->ranges);
      },
      [this] {
        if (!work_->result) return finish(work_->result);
        begin();
      });
}

RecordHeader BaseSource::header(RecordType type, Position position) const {
  RecordHeader header;
  header.type = type;
  header.group = raw(work_->job.group);
  header.epoch = raw(position.epoch);
  header.seq = position.seq;
  header.wall_ns = clock_.wall_ns();
  return header;
}

void BaseSource::begin() {
  const GroupState& state = work_->image.state;
  BaseJob& job = work_->job;
  if (state.history.empty() || state.inconsistent)
    return finish(fail(ErrorKind::kRefused, EAGAIN, "this node has no consistent copy of it itself"));
  Position position{state.history.back().epoch, state.seq};
  if (job.whole) job.ranges = {{0, work_->image.stat.size}};
  if (job.group != kNameSpace)
    for (const BaseRange& range : job.ranges) bytes_total_ += range.length;
  BaseBegin begin;
  begin.whole = job.whole;
  begin.history = state.history;
  // The newest are what is compared, and what a message takes.
  if (begin.history.size() > kHistoryMax)
    begin.history.erase(begin.history.begin(), begin.history.end() - kHistoryMax);
  begin.stat = work_->image.stat;
  begin.owner = state.owner;
  begin.taker = state.taker;
  if (!job.whole) {
    // One record names them all.
    std::size_t room = volume_.journal().payload_max() - encode(begin).size();
    job.ranges = coarsen_ranges(std::move(job.ranges), std::min(kRangesMax, room / sizeof(BaseRange)));
    begin.ranges = job.ranges;
  }
  sender_.inject(header(RecordType::kBaseBegin, position), encode(begin), compression_());
  sender_.positions().set(job.group, position);
  // What came after the position while the ranges or names were read was passed over: the group was stopped.
  sender_.look_back(work_->from);
  if (!job.ranges.empty()) work_->offset = job.ranges.front().offset;
  step_ = Step::kCopying;
  events_.copy_begun(job.group, job.whole);
  events_.copy_advanced();
}

void BaseSource::read() {
  Work& work = *work_;
  if (work.job.group == kNameSpace) {
    // They were read in one piece after the position was taken: only to be sent.
    const GroupState& state = work.image.state;
    while (work.names_sent < work.names.size()) {
      if (!sender_.has_room()) return;
      std::vector<BaseObject> some;
      for (std::size_t bytes = 0; bytes < kBlockBytes / 4 && work.names_sent < work.names.size();) {
        const BaseObject& object = work.names[work.names_sent++];
        bytes += 200 + object.name.size() + object.target.size();
        some.push_back(object);
      }
      sender_.inject(header(RecordType::kBaseData, {state.history.back().epoch, state.seq}),
                     encode(some), compression_());
    }
    return measure();
  }
  step_ = Step::kReading;
  sender_.hold(true);
  blocking(
      [&volume = volume_](Work& work) {
        while (work.range < work.job.ranges.size()) {
          const BaseRange& range = work.job.ranges[work.range];
          std::uint64_t end = range.offset + range.length;
          auto next = volume.base_next(work.job.group, work.offset, kBlockBytes);
          if (!next) {
            work.result = pass(next.error());
            return;
          }
          if (!*next) {
            work.range = work.job.ranges.size();
            break;
          }
          BaseRange block = **next;
          if (block.offset >= end) {
            if (++work.range < work.job.ranges.size())
              work.offset = std::max(work.offset, work.job.ranges[work.range].offset);
            continue;
          }
          block.length = std::min(block.length, end - block.offset);
          work.bytes.resize(block.length);
          if (auto read = volume.base_read(work.job.group, block.offset, work.bytes); !read) {
            work.result = pass(read.error());
            return;
          }
          work.block = block;
          work.offset = block.offset + block.length;
          return;
        }
        work.complete = true;
      },
      [this] {
        sender_.hold(false);
        send_block();
      });
}

void BaseSource::send_block() {
  Work& work = *work_;
  if (!work.result) return finish(work.result);
  step_ = Step::kCopying;
  if (work.complete) return measure();
  const GroupState& state = work.image.state;
  RecordHeader data = header(RecordType::kBaseData, {state.history.back().epoch, state.seq});
  data.offset = work.block.offset;
  data.extent = work.block.length;
  sender_.inject(data, work.bytes, compression_());
  bytes_done_ += work.block.length;
  events_.copy_advanced();
}

// The position that the target must pass before what it has is a state of the group.
void BaseSource::measure() {
  step_ = Step::kMeasuring;
  blocking(
      [&volume = volume_](Work& work) {
        auto image = volume.base_image(work.job.group);
        if (!image) {
          work.result = pass(image.error());
          return;
        }
        work.end = {image->state.history.back().epoch, image->state.seq};
      },
      [this] {
        if (!work_->result) return finish(work_->result);
        step_ = Step::kEnding;
        events_.copy_advanced();
      });
}

void BaseSource::begin_again() {
  BaseJob job;
  job.group = work_->job.group;
  step_ = Step::kIdle;
  work_.reset();
  queue_.push_front(std::move(job));
}

void BaseSource::finish(Result<> result) {
  if (work_->again && result) return begin_again();
  GroupId group = work_->job.group;
  step_ = Step::kIdle;
  work_.reset();
  if (queue_.empty()) bytes_done_ = bytes_total_ = 0;
  events_.copy_finished(group, std::move(result));
}

}  // namespace vmfs
