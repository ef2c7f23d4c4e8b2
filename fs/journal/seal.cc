// The end of a segment, and of a block before a sync. All with the reservation lock held.
#include <cstring>

#include "fs/base/check.h"
#include "fs/base/hash.h"
#include "fs/journal/journal_impl.h"

namespace vmfs {

// After each record there must be room for the pad that leads to the seal, and for the seal.
bool Journal::Impl::fits(Lsn next, std::uint64_t entries, std::uint64_t length) const {
  std::uint64_t offset = geometry.offset(next);
  return offset + length + sizeof(RecordHeader) + seal_size(entries) <= geometry.segment_size;
}

void Journal::Impl::add_entry(const RecordHeader& header) {
  SealEntry entry = seal_entry(header, static_cast<std::uint32_t>(geometry.offset(header.lsn)));
  table->add(entry);
}

void SealTableBuffer::add(const SealEntry& entry) {
  std::size_t at = static_cast<std::size_t>(entries) * sizeof(SealEntry);
  // The trailer's place is kept too, so that sealing allocates nothing.
  if (bytes.size() < at + sizeof(SealEntry) + sizeof(SealTrailer)) [[unlikely]]
    bytes.resize(std::max<std::size_t>(64 * 1024, bytes.size() * 2));
  std::memcpy(bytes.data() + at, &entry, sizeof entry);
  ++entries;
}

void Journal::Impl::seal() {
  const Lsn end = geometry.start(current + 1);
  const Lsn seal_at = end - seal_size(table->entries);
  RecordHeader pad;
  pad.type = RecordType::kPad;
  pad.lsn = next_lsn;
  pad.durable = durable.load(std::memory_order_relaxed);
  pad.generation = generation;
  CHECK_COMPARE(seal_at, >=, next_lsn + sizeof(RecordHeader));
  pad.extent = seal_at - next_lsn;
  pad.payload_hash = hash64({});
  put_slot(pad, nullptr, seal_at, true);

  SealTrailer trailer;
  trailer.seal_offset = geometry.offset(seal_at);
  trailer.entries = static_cast<std::uint32_t>(table->entries);
  std::size_t table_bytes = static_cast<std::size_t>(table->entries) * sizeof(SealEntry);
  if (table->bytes.size() < table_bytes + sizeof trailer)
    table->bytes.resize(table_bytes + sizeof trailer);
  std::memcpy(table->bytes.data() + table_bytes, &trailer, sizeof trailer);

  RecordHeader header;
  header.type = RecordType::kSeal;
  header.lsn = seal_at;
  header.durable = pad.durable;
  header.generation = generation;
  header.payload_size = static_cast<std::uint32_t>(table_bytes + sizeof trailer);
  header.payload_hash = hash64({table->bytes.data(), header.payload_size});
  put_slot(header, table->bytes.data(), geometry.first_record(current + 1), true);

  table->free_after = next_lsn;
  old_tables.push_back(std::move(table));
  table = new_table();
  ++current;
}

std::unique_ptr<SealTableBuffer> Journal::Impl::new_table() {
  // The oldest one is free once its seal is written, which it is but for tiny segments.
  if (!old_tables.empty() &&
      old_tables.front()->free_after <= written.load(std::memory_order_acquire)) {
    auto reused = std::move(old_tables.front());
    old_tables.pop_front();
    reused->entries = 0;
    return reused;
  }
  return std::make_unique<SealTableBuffer>();
}

void Journal::Impl::pad_to_block() {
  if (next_lsn == align_to_block(next_lsn)) return;
  Lsn to = align_to_block(next_lsn);
  if (to - next_lsn < sizeof(RecordHeader)) to += kBlock;
  if (!fits(next_lsn, table->entries, to - next_lsn)) {
    // The seal does as well: the next record is in another segment, whether or not that is ready.
    seal();
  } else {
    RecordHeader pad;
    pad.type = RecordType::kPad;
    pad.lsn = next_lsn;
    pad.durable = durable.load(std::memory_order_relaxed);
    pad.generation = generation;
    pad.extent = to - next_lsn;
    pad.payload_hash = hash64({});
    put_slot(pad, nullptr, to, false);
  }
  reserved.store(next_lsn, std::memory_order_release);
}

}  // namespace vmfs
