// The outside of a journal. What it does is in the files that journal_impl.h names.
#include "fs/journal/journal.h"

#include <fmt/format.h>

#include <bit>
#include <cerrno>

#include "fs/base/check.h"
#include "fs/journal/journal_impl.h"

namespace vmfs {

Journal::Impl::Impl(Disk& the_disk, Clock& the_clock, const JournalOptions& the_options,
                    std::uint64_t segments_found)
    : disk(the_disk),
      clock(the_clock),
      options(the_options),
      segments(the_disk, the_options, segments_found),
      geometry{the_options.segment_size},
      table(std::make_unique<SealTableBuffer>()),
      slots(std::make_unique<JournalSlot[]>(kSlots)) {}

Journal::Journal(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Journal::~Journal() = default;

Result<Journal::Reservation> Journal::reserve(Draft& draft, SequenceCursor* cursor) {
  Reservation reservation;
  VMFS_TRY(impl_->reserve_all({&draft, 1}, cursor, {&reservation, 1}));
  return reservation;
}

Result<> Journal::reserve_all(std::span<Draft> drafts, SequenceCursor* cursor,
                              std::span<Reservation> out) {
  return impl_->reserve_all(drafts, cursor, out);
}

Result<> Journal::commit(Draft& draft, const Reservation& reservation, bool hashed) {
  impl_->fill(draft, reservation, hashed);
  return impl_->wait_written(reservation);
}

void Journal::fill(Draft& draft, const Reservation& reservation, bool hashed) {
  impl_->fill(draft, reservation, hashed);
}

Result<bool> Journal::poll_written(const Reservation& reservation) {
  return impl_->poll_written(reservation);
}

Result<Journal::Reservation> Journal::append(Draft& draft, SequenceCursor* cursor) {
  VMFS_ASSIGN(Reservation reservation, reserve(draft, cursor));
  VMFS_TRY(commit(draft, reservation));
  return reservation;
}

void Journal::with_reservations_locked(const std::function<void()>& f) {
  std::lock_guard lock(impl_->reservation_lock);
  f();
}

Result<> Journal::sync_through(Lsn lsn) {
  CHECK_COMPARE(lsn, <=, reserved_lsn());
  return impl_->sync_through(lsn);
}

Lsn Journal::reserved_lsn() const { return impl_->reserved.load(std::memory_order_acquire); }
Lsn Journal::written_lsn() const { return impl_->written.load(std::memory_order_acquire); }
Lsn Journal::durable_lsn() const { return impl_->durable.load(std::memory_order_acquire); }
std::uint64_t Journal::unsynced_bytes() const {
  // In this order: what was written in between may be counted, but the difference is never negative.
  Lsn durable = durable_lsn();
  return written_lsn() - durable;
}

std::int64_t Journal::unsynced_since_ns() const {
  std::int64_t since = impl_->unsynced_since.load(std::memory_order_acquire);
  if (since == 0) return 0;
  return std::max<std::int64_t>(1, impl_->clock.monotonic_ns() - since);
}

void Journal::on_durable(std::function<void(Lsn)> callback) {
  impl_->on_durable = std::move(callback);
}
void Journal::on_space(std::function<void()> callback) { impl_->on_space = std::move(callback); }
void Journal::on_death(std::function<void()> callback) { impl_->on_death = std::move(callback); }

Result<bool> Journal::read_payload(Lsn lsn, std::span<std::byte> out) const {
  return impl_->read(lsn, out, "journal.read");
}

Result<> Journal::replay(
    const std::function<Result<>(Lsn lsn, const SealEntry& record)>& visit) {
  CHECK_INVARIANT(!impl_->reserved_once, "replay() comes before the first reserve()");
  return impl_->replay(visit);
}

Result<> Journal::release_through(Lsn lsn) { return impl_->release_through(lsn); }
Lsn Journal::oldest_lsn() const { return impl_->oldest.load(std::memory_order_acquire); }
std::uint64_t Journal::bytes_used() const {
  Lsn oldest = oldest_lsn();
  return reserved_lsn() - oldest;
}
Result<bool> Journal::prepare_segments() { return impl_->prepare_segments(); }

std::uint32_t Journal::generation() const { return impl_->generation; }
const JournalOptions& Journal::options() const { return impl_->options; }

Journal::State Journal::state() const {
  State state;
  state.dead = impl_->dead.load(std::memory_order_acquire);
  state.failed = state.dead || impl_->failed.load(std::memory_order_acquire);
  std::lock_guard lock(impl_->message_mutex);
  state.message = impl_->message;
  return state;
}

}  // namespace vmfs
