// Making durable: group commit of syncs, and what happens when one fails.
#include <fmt/format.h>

#include <cerrno>

#include "fs/base/check.h"
#include "fs/base/log.h"
#include "fs/base/mistakes.h"
#include "fs/journal/journal_impl.h"
#include "fs/journal/rewrite.h"

namespace vmfs {

Result<> Journal::Impl::sync_through(Lsn lsn) {
  if (durable.load(std::memory_order_acquire) >= lsn &&
      !failed.load(std::memory_order_acquire)) [[unlikely]]
    return {};
  std::unique_lock lock(sync_mutex);
  while (durable.load(std::memory_order_acquire) < lsn || failed.load(std::memory_order_acquire)) {
    if (syncing) {
      // The sync under way may have begun before our record: then the next one is ours.
      std::uint64_t ended = syncs_ended;
      sync_done.wait(lock, [&] { return syncs_ended != ended; });
      if (!last_sync && durable.load(std::memory_order_acquire) < lsn) return last_sync;
      continue;
    }
    syncing = true;
    lock.unlock();
    const Lsn before = durable.load(std::memory_order_relaxed);
    auto done = sync_once();
    lock.lock();
    syncing = false;
    ++syncs_ended;
    last_sync = done;
    sync_done.notify_all();
    if (durable.load(std::memory_order_relaxed) > before && on_durable) {
      lock.unlock();
      on_durable(durable.load(std::memory_order_acquire));
      lock.lock();
    }
    if (!done) return done;
  }
  return {};
}

Result<> Journal::Impl::sync_once() {
  const std::int64_t began_ns = clock.monotonic_ns();
  Lsn to;
  {
    // After this nothing is appended to the block in which the log ends now: what this sync makes
    // durable is never written again.
    std::lock_guard lock(reservation_lock);
    pad_to_block();
    to = next_lsn;
  }
  const Lsn from = durable.load(std::memory_order_relaxed);
  VMFS_TRY(wait_written(to));
  bool needs_healing = failed.load(std::memory_order_acquire);
  Error why{ErrorKind::kIo, EIO, "an earlier sync failed"};
  if (!needs_healing) {
    auto synced = sync_segments(from, to);
    if (!synced && mistakes.retry_failed_sync) [[unlikely]]
      synced = sync_segments(from, to);
    if (!synced) {
      needs_healing = true;
      why = synced.error();
    }
  }
  if (needs_healing) {
    while (!try_become_writer()) std::this_thread::yield();
    auto healed = heal(why);
    if (!healed) {
      std::lock_guard lock(reservation_lock);
      refusing = true;
      // Records that have their place in the sequence but not in the file: their callers wait, and
      // cannot be told to take their numbers back.
      if (head != tail.load(std::memory_order_acquire)) die(healed.error());
    }
    stop_being_writer();
    VMFS_TRY(healed);
    bool refused;
    {
      std::lock_guard lock(reservation_lock);
      refused = std::exchange(refusing, false);
    }
    set_durable(to, began_ns);
    if (refused && on_space) on_space();
    return {};
  }
  set_durable(to, began_ns);
  return {};
}

Result<> Journal::Impl::sync_segments(Lsn from, Lsn to) {
  for (std::uint64_t number = geometry.number(from); geometry.first_record(number) < to; ++number)
    VMFS_TRY(segments.sync(number, "journal.sync"));
  return {};
}

void Journal::Impl::set_durable(Lsn lsn, std::int64_t began_ns) {
  CHECK_COMPARE(lsn, <=, written.load(std::memory_order_acquire));
  durable.store(lsn, std::memory_order_seq_cst);
  unsynced_since.store(0, std::memory_order_seq_cst);
  // What was written while the sync ran has waited since it began, at most.
  if (written.load(std::memory_order_seq_cst) > lsn)
    unsynced_since.store(began_ns, std::memory_order_seq_cst);
}

// Being the writer: nothing is written to the files, and so nothing acknowledged, meanwhile.
Result<> Journal::Impl::heal(const Error& why) {
  failed.store(true, std::memory_order_seq_cst);
  set_message(fmt::format("{}; the unconfirmed end of the journal is being written again",
                          why.message));
  log_error("journal: {}; writing the unconfirmed end again", why.message);
  set_sync_failed_marker(disk);
  const Lsn to = written.load(std::memory_order_acquire);
  auto attempt = [&]() -> Result<> {
    for (std::uint64_t number = geometry.number(durable.load(std::memory_order_acquire));
         geometry.first_record(number) <= to && segments.has(number); ++number) {
      SegmentIdentity identity{geometry, number, segments.incarnation(number)};
      Lsn until = std::min(to, geometry.start(number + 1));
      // A spare first: the disk may have no room for another file.
      VMFS_ASSIGN(FreeFile spare, segments.take_spare());
      VMFS_ASSIGN(RewrittenSegment again,
                  rewrite_segment(disk, options, identity, segments.file(number), until,
                                  "journal.heal", std::move(spare)));
      segments.replace(number, std::move(again.file), again.incarnation);
    }
    return clear_sync_failed_marker(disk);
  };
  auto healed = attempt();
  if (!healed) {
    set_message(fmt::format("{}; writing the end of the journal again failed too: {}", why.message,
                            healed.error().message));
    log_error("journal: writing the end again failed too: {}", healed.error().message);
    return healed;
  }
  failed.store(false, std::memory_order_seq_cst);
  if (!dead.load(std::memory_order_acquire)) set_message({});
  log_notice("journal: the unconfirmed end is written again, in new segments");
  return {};
}

void Journal::Impl::die(const Error& why) {
  set_message(fmt::format("{}; changes are refused until the volume is mounted again (vmfs restart)",
                          why.message));
  log_error("journal: {}; it accepts nothing more until it is opened again", why.message);
  if (on_death) on_death();
  failed.store(true, std::memory_order_seq_cst);
  dead.store(true, std::memory_order_seq_cst);
  wake.fetch_add(1, std::memory_order_seq_cst);
  wake.notify_all();
}

}  // namespace vmfs
