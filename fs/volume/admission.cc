// Whether a change may be made now: the group's gate, memory, and space in the store. What is
// acknowledged must fit: the guest gets ENOSPC before, never after.
#include "fs/journal/segment.h"
#include "fs/volume/impl.h"
#include "fs/volume/refusal.h"

namespace vmfs {

namespace {
constexpr std::uint64_t kAdmittedAtOnce = 64u << 20;
// Files that are never promised to guests: the state is replaced by way of another one, and the like.
constexpr std::uint64_t kFilesKept = 64;
}

thread_local Refusal Refusal::current;
thread_local GroupId Refusal::waits_for{};
thread_local std::uint64_t Refusal::asked_at = 0;

tl::unexpected<Error> Volume::Impl::would_wait() {
  Refusal::waits_for = {};
  return fail(ErrorKind::kWouldWait, EAGAIN);
}

Error Volume::Impl::closed_gate(GroupId group, Gate gate) {
  // This thread runs a parked request of a group that was refused: this is its answer.
  if (Refusal::current.error && Refusal::current.group == group) return *Refusal::current.error;
  std::uint64_t asked_at = parking_.wake_number.load();
  Error error = hooks_ ? hooks_->may_not_change(group, gate)
                       : Error{ErrorKind::kReadOnly, EROFS, {}};
  if (error.kind == ErrorKind::kWouldWait) {
    Refusal::waits_for = group;
    Refusal::asked_at = asked_at;
  }
  return error;
}

std::uint64_t Volume::Impl::unapplied_bytes() {
  std::lock_guard lock(dirty_mutex_);
  std::uint64_t bytes = 0;
  for (const auto& inode : dirty_)
    bytes += inode->image->index.bytes() + inode->image->allocating.load(std::memory_order_relaxed);
  return bytes;
}

void Volume::Impl::refresh_admission(std::uint64_t wanted) {
  std::lock_guard lock(admission_mutex_);
  auto space = store_->space();
  if (!space) {
    problem("space", fmt::format("cannot ask the store's file system for its free space: {}\ncheck its disk:  dmesg",
                                 space.error().message));
    return;
  }
  no_problem("space");
  const std::uint64_t kept = set_aside(*space);
  std::uint64_t left = space->available > kept ? space->available - kept : 0;
  image_max_.store(space->file_size_max);
  files_kept_.store(std::min(kFilesKept + journal_growth(*space) / options_.journal.segment_size,
                             space->files_total / 8));
  // Others use the file system too: after so much it is asked again.
  left = std::min(left, std::max(kAdmittedAtOnce, wanted));
  admission_limit_.store(admitted_.load() + left);
}

// Of what is free: a margin (a small file system keeps a smaller one), what is acknowledged and not yet in the store,
// and what the journal has yet to take.
std::uint64_t Volume::Impl::set_aside(const DiskSpace& store) {
  return std::min(kSpaceMargin, store.total / 64) + unapplied_bytes() + journal_growth(store);
}

Result<> Volume::Impl::admit_file() {
  VMFS_ASSIGN(DiskSpace space, store_->space());
  if (space.files_total != 0 && space.files_free <= files_kept_.load())
    return fail(ErrorKind::kNoSpace, ENOSPC);
  return {};
}

std::uint64_t Volume::Impl::journal_growth(const DiskSpace& store) {
  if (journal_complete_) return 0;
  auto own = journal_disk_.space("journal.space");
  auto files = journal_disk_.list("", "journal.space");
  if (!own || !files) return 0;
  // Two file systems of the same size with the same space left are one: nothing else tells.
  if (own->total != store.total || own->files_total != store.files_total) {
    journal_complete_ = true;
    return 0;
  }
  std::uint64_t segments = 0;
  for (const DirectoryEntry& file : *files) segments += file.name.ends_with(".seg") || is_spare_name(file.name);
  std::uint64_t made = segments * options_.journal.segment_size;
  journal_complete_ = made >= options_.journal.size_max;
  return journal_complete_ ? 0 : options_.journal.size_max - made;
}

Result<> Volume::Impl::admit_closely(Inode* inode, std::uint64_t offset, std::uint64_t bytes) {
  // What this request asked for was counted already: it must fit in what is left now.
  admitted_.fetch_sub(bytes);
  refresh_admission(bytes);
  if (admitted_.load() + bytes <= admission_limit_.load()) {
    admitted_.fetch_add(bytes);
    return {};
  }
  // All was treated as allocating. A range that has its blocks already needs none.
  if (inode && inode->image && bytes != 0) {
    auto file = store_->file(inode->id);
    if (file) {
      // What the file system keeps beyond the end it may take back.
      auto stat = (*file)->stat("store.admit");
      auto owned = (*file)->owns_blocks(offset, bytes, "store.admit");
      if (stat && stat->size >= offset + bytes && owned && *owned) return {};
    }
  }
  if (bytes == 0) return {};
  return fail(ErrorKind::kNoSpace, ENOSPC);
}

}  // namespace vmfs
