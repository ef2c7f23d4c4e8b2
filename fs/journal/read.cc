#include <fmt/format.h>

#include <cerrno>

#include "fs/base/check.h"
#include "fs/journal/journal_impl.h"

namespace vmfs {

Result<bool> Journal::Impl::read(Lsn lsn, std::span<std::byte> out, Label label) const {
  const std::uint64_t number = geometry.number(lsn);
  const std::uint64_t offset = geometry.offset(lsn);
  if (lsn < oldest.load(std::memory_order_acquire)) return false;
  CHECK_COMPARE(offset + out.size(), <=, geometry.segment_size);
  auto got = segments.read(number, offset, out, label);
  // Only now: if the segment was alive after the bytes were read, they were not yet overwritten.
  std::atomic_thread_fence(std::memory_order_acquire);
  if (lsn < oldest.load(std::memory_order_seq_cst)) return false;
  if (!got) return pass(std::move(got.error()));
  if (*got != out.size())
    return fail(ErrorKind::kCorrupt, EIO,
                fmt::format("{} ends at {} bytes", disk.display(segment_name(number)),
                            offset + *got));
  return true;
}

}  // namespace vmfs
