// Preparing segments ahead of use, and releasing those that are not needed any more.
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include "fs/base/check.h"
#include "fs/base/log.h"
#include "fs/journal/journal_impl.h"

namespace vmfs {

std::uint64_t Journal::Impl::prepared_through() {
  std::lock_guard lock(reservation_lock);
  return ready_through;
}

void Journal::Impl::set_message(std::string text) {
  std::lock_guard lock(message_mutex);
  message = std::move(text);
}

// The last of the space is not the journal's: without room for the state of the store no checkpoint could be made, and
// so nothing that is in the journal would ever be freed.
Result<> Journal::Impl::room_for_a_file() {
  constexpr std::uint64_t kForTheState = 1u << 20;
  VMFS_ASSIGN(DiskSpace space, disk.space("journal.prepare"));
  if (space.available >= options.segment_size + kForTheState) return {};
  return fail(ErrorKind::kNoSpace, ENOSPC,
              fmt::format("{}: no room for another segment: {} bytes are free", disk.display(""), space.available));
}

Result<> Journal::Impl::prepare_next(std::uint64_t needed) {
  std::lock_guard space(space_mutex);
  for (;;) {
    const std::uint64_t number = prepared_through() + 1;
    if (number > needed) return {};
    if (number - geometry.number(oldest.load(std::memory_order_acquire)) >= segments.count_max())
      return fail(ErrorKind::kNoSpace, ENOSPC, "the journal is full");
    const bool may_create = segments.files() < segments.count_max();
    if (may_create && segments.spares() == 0) VMFS_TRY(room_for_a_file());
    VMFS_TRY(segments.make_ready(number, may_create));
    std::lock_guard lock(reservation_lock);
    ready_through = number;
  }
}

Result<bool> Journal::Impl::prepare_segments() {
  // While the disk is busy with a burst, making a segment ready takes as long as writing one: so up to half of
  // the journal is ready before. Files that are still to be made cost their whole size: of those only as many
  // as let writers go on meanwhile. None may be counted on when the journal is nearly full.
  const std::uint64_t count = segments.count_max();
  const std::uint64_t ahead = segments.spares() > 0 ? std::max<std::uint64_t>(count / 2, 2)
                                                    : std::clamp<std::uint64_t>(count / 4, 2, 4);
  std::uint64_t number, in_use;
  {
    std::lock_guard lock(reservation_lock);
    number = ready_through + 1;
    in_use = current;
  }
  if (number > in_use + ahead ||
      number - geometry.number(oldest.load(std::memory_order_acquire)) >= segments.count_max())
    return false;
  auto prepared = prepare_next(number);
  if (!prepared) {
    set_message(prepared.error().message);
    return pass(std::move(prepared.error()));
  }
  if (!failed.load(std::memory_order_acquire)) set_message({});
  // Who was refused because the disk was full may go on.
  if (on_space) on_space();
  return true;
}

Result<> Journal::Impl::release_through(Lsn lsn) {
  CHECK_COMPARE(lsn, <=, durable.load(std::memory_order_acquire));
  bool freed = false;
  {
    std::lock_guard space(space_mutex);
    // The log always has a file to stand in, even when its last segment is sealed and the next is not
    // ready.
    std::uint64_t keep = std::min(geometry.number(lsn), prepared_through());
    if (geometry.start(keep) > oldest.load(std::memory_order_relaxed)) {
      // Readers look at this after they have read: first it moves, then files are overwritten.
      oldest.store(geometry.start(keep), std::memory_order_seq_cst);
      freed = true;
    }
    for (; next_to_retire < keep; ++next_to_retire) VMFS_TRY(segments.retire(next_to_retire));
  }
  if (freed && on_space) on_space();
  return {};
}

}  // namespace vmfs
