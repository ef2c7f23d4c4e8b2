// What a node keeps of a state that it gives up, and what it would have to fetch again.
#include <algorithm>

#include "fs/base/printable.h"
#include "fs/journal/record_reader.h"
#include "fs/volume/impl.h"

namespace vmfs {

namespace {

// Ranges nearer to each other than this are fetched as one: a list of many is dearer than the bytes.
constexpr std::uint64_t kJoinGap = 64u << 10;

std::vector<BaseRange> joined(std::vector<BaseRange> ranges) {
  for (BaseRange& range : ranges) {
    std::uint64_t end = (range.offset + range.length + kBlock - 1) / kBlock * kBlock;
    range.offset = range.offset / kBlock * kBlock;
    range.length = end - range.offset;
  }
  std::sort(ranges.begin(), ranges.end(),
            [](const BaseRange& a, const BaseRange& b) { return a.offset < b.offset; });
  std::vector<BaseRange> out;
  for (const BaseRange& range : ranges) {
    if (!out.empty() && range.offset <= out.back().offset + out.back().length + kJoinGap)
      out.back().length =
          std::max(out.back().length, range.offset + range.length - out.back().offset);
    else
      out.push_back(range);
  }
  return out;
}

}  // namespace

Result<Volume::Touched> Volume::touched_since(GroupId id, Position since) {
  Impl& v = *impl_;
  std::shared_ptr<Inode> alive;
  VolumeGroup* group = v.find_group(id, alive);
  if (!group) return fail(ErrorKind::kNotFound, ENOENT, fmt::format("no group {}", id));
  GroupState state = v.state_of(*group);
  VMFS_TRY(v.journal_->sync_through(v.journal_->reserved_lsn()));  // all of that can be read
  // Where an epoch stands in the history; nothing: it is not in it.
  auto place = [&](EpochId epoch) -> std::optional<std::size_t> {
    for (std::size_t i = 0; i < state.history.size(); ++i)
      if (state.history[i].epoch == epoch) return i;
    return {};
  };
  auto from = place(since.epoch);
  if (!from) return Touched{};
  auto after = [&](Position position) {
    auto at = place(position.epoch);
    return at && (*at > *from || (*at == *from && position.seq > since.seq));
  };
  if (after(state.recycled)) return Touched{};

  std::vector<BaseRange> ranges;
  bool changed = false;
  std::uint64_t next = since.seq + 1;  // of the group's history: none of it may be missing
  RecordReader reader(*v.journal_, 0);
  for (;;) {
    auto view = reader.next(v.journal_->written_lsn());
    if (!view && view.error().kind == ErrorKind::kNotFound) return Touched{};  // just recycled
    if (!view) return pass(std::move(view.error()));
    if (!*view) break;
    const RecordHeader& header = (*view)->header;
    if (header.group != raw(id) || !after({EpochId{header.epoch}, header.seq})) continue;
    if (header.type != RecordType::kBaseData && header.type != RecordType::kBaseEnd && header.seq == next) ++next;
    changed = changed || !(is_housekeeping(header.type) || header.type == RecordType::kReleased ||
                           header.type == RecordType::kTaken);
    switch (header.type) {
      case RecordType::kWrite:
      case RecordType::kZero:
      case RecordType::kBaseData:
        ranges.push_back({header.offset, header.extent});
        break;
      case RecordType::kTruncate: {
        std::uint64_t low = std::min(header.offset, header.extent);
        std::uint64_t high = std::max(header.offset, header.extent);
        if (low != high) ranges.push_back({low, high - low});
        break;
      }
      case RecordType::kBaseBegin:
        return Touched{};
      default:
        break;
    }
  }
  if (next <= state.seq) return Touched{};
  return Touched{changed, joined(std::move(ranges))};
}

Result<> Volume::keep_as_snapshot(GroupId id, const std::string& name) {
  Impl& v = *impl_;
  if (id == kNameSpace) {
    std::string listing;
    {
      std::shared_lock lock(v.names_mutex_);
      for (const auto& [object, inode] : v.tree_.objects()) {
        if (inode->local || object == kRootObject) continue;
        const FileStat attributes = inode->attributes();
        const bool link = inode->type == FileType::kSymlink;
        const char* type = link ? "symlink" : inode->is_directory() ? "directory" : "image";
        listing += fmt::format("{} {:9} {:04o} {}:{} {} {}{}{}\n", object, type, attributes.permissions, attributes.uid,
                               attributes.gid, attributes.mtime_ns / 1'000'000'000,
                               printable_name(v.tree_.path_of(*inode)), link ? " -> " : "",
                               link ? printable_name(inode->target) : "");
      }
    }
    constexpr const char* kDirectory = "kept-names";
    auto made = v.store_disk_.make_directory(kDirectory, "store.keep_names");
    if (!made && made.error().kind != ErrorKind::kExists) return made;
    VMFS_TRY(v.store_disk_.sync_directory("", "store.keep_names"));
    return replace_file(v.store_disk_, fmt::format("{}/{}.txt", kDirectory, name),
                        as_bytes(listing), "store.keep_names");
  }

  std::vector<StoredObject> made;
  std::shared_ptr<Inode> inode;
  Position position;
  {
    std::lock_guard apply_lock(v.apply_mutex_);
    inode = v.find_image(id);
    if (!inode) return fail(ErrorKind::kNotFound, ENOENT, fmt::format("no image {}", id));
    std::unique_lock<ImageLock> lock(inode->image->lock);
    position = v.position_of(inode->image->group);
    {
      std::lock_guard group_lock(inode->image->group.mutex);
      if (inode->image->group.kept == position) return {};  // by a follow that was cut off
    }
    VMFS_TRY(v.apply_fully(*inode));
  }
  // Without a lock: where the file system cannot share extents this takes as long as the image is large, and
  // neither the applier nor the peers' records for other images may wait so long.
  VMFS_ASSIGN(made, v.store_->keep_copy(id, name));
  {
    // No checkpoint may sync the directories again, and believe that, before what a failed sync has forgotten is
    // made again.
    std::lock_guard apply_lock(v.apply_mutex_);
    if (auto synced = v.store_->sync_names(); !synced) {
      v.names_forgotten_ = true;
      return synced;
    }
  }
  {
    std::lock_guard group_lock(inode->image->group.mutex);
    inode->image->group.kept = position;
  }
  std::unique_lock lock(v.names_mutex_);
  for (const StoredObject& stored : made)
    if (!v.tree_.find(stored.object)) v.show_stored(stored);
  return {};
}

}  // namespace vmfs
