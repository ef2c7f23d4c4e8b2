// What a daemon finds in the memory that its holder passes on. Whatever stands there, it is refused with what to do,
// or all of it can be used: the tables lie inside it, and what was unanswered is told the same by whoever asks.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "fs/base/check.h"
#include "fs/fuse/request.h"

namespace {

using namespace vmfs;

constexpr std::uint64_t kUnusual = 0x7654321076543210;

void use(ConnectionMemory& memory) {
  CHECK_COMPARE(memory.init_request().size(), <=, sizeof(ConnectionHeader::init_request));
  CHECK_COMPARE(memory.init_reply().size(), <=, sizeof(ConnectionHeader::init_reply));
  CHECK_COMPARE(memory.opens().size(), <=, ConnectionMemory::kOpenMax);
  CHECK_COMPARE(memory.header().opens_used.load(), <=, memory.opens().size());
  std::size_t open = 0, noted = 0;
  for (OpenEntry& entry : memory.opens()) open += entry.object.load() != 0;
  for (auto& slot : memory.slots()) noted += slot.load() != 0;
  CHECK_COMPARE(open, <=, memory.opens().size());
  const auto unanswered = memory.unanswered();
  CHECK_COMPARE(unanswered.size(), <=, noted);
  CHECK_INVARIANT(std::is_sorted(unanswered.begin(), unanswered.end()));
  for (std::uint64_t unique : unanswered) CHECK_INVARIANT(memory.is_unanswered(unique));
  // The next daemon: it finds each of them once, and gives nobody else a place that one of them has.
  const std::uint32_t used = memory.header().slots_used.load();
  SlotTable slots(memory);
  CHECK_INVARIANT(memory.unanswered() == unanswered);
  if (const std::uint32_t mine = slots.acquire(); mine != SlotTable::kNone) {
    // What lies behind those in use was never anybody's, and is not looked at before it is written.
    if (mine < used) CHECK_COMPARE(memory.slots()[mine].load(), ==, 0u);
    slots.note(mine, kUnusual);
    CHECK_INVARIANT(memory.is_unanswered(kUnusual));
    slots.release(mine);
  }
  for (std::uint64_t unique : unanswered) {
    const std::uint32_t slot = slots.claim_left(unique);
    CHECK_INVARIANT(slot != SlotTable::kNone && memory.slots()[slot].load() == unique);
    slots.release(slot);
  }
  CHECK_INVARIANT(memory.unanswered().empty());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 2) return 0;
  const unsigned choice = data[0];
  Bytes content(kConnectionTablesStart + 512);
  // The header without its long texts, then the tables.
  constexpr std::size_t kNumbers = offsetof(ConnectionHeader, init_request);
  const std::size_t in_header = std::min(size - 1, kNumbers);
  std::memcpy(content.data(), data + 1, in_header);
  std::memcpy(content.data() + kConnectionTablesStart, data + 1 + in_header,
              std::min<std::size_t>(size - 1 - in_header, 512));
  std::uint32_t counts[2];
  std::memcpy(counts, content.data() + offsetof(ConnectionHeader, open_count), sizeof counts);
  std::size_t file_size = kConnectionTablesStart + data[1] * 8u;
  if ((choice & 1) != 0) {  // or nothing beyond the first look would ever be reached
    std::memcpy(content.data(), &kConnectionMagic, sizeof kConnectionMagic);
    std::memcpy(content.data() + offsetof(ConnectionHeader, version), &kConnectionVersion, sizeof kConnectionVersion);
    if ((choice & 2) != 0) {
      counts[0] %= 16;
      counts[1] %= 64;
      std::memcpy(content.data() + offsetof(ConnectionHeader, open_count), counts, sizeof counts);
    }
    // Sparse, and still no more than this machine has.
    if (counts[0] < 1u << 19 && counts[1] < 1u << 17)
      file_size = kConnectionTablesStart + counts[0] * sizeof(OpenEntry) + counts[1] * sizeof(std::uint64_t);
  }
  const int descriptor = ::memfd_create("fuzz", MFD_CLOEXEC);
  CHECK_COMPARE(descriptor, >=, 0);
  CHECK_COMPARE(::pwrite(descriptor, content.data(), content.size(), 0), ==, static_cast<ssize_t>(content.size()));
  CHECK_COMPARE(::ftruncate(descriptor, static_cast<off_t>(file_size)), ==, 0);
  auto memory = ConnectionMemory::map(descriptor);
  if (memory) {
    use(*memory);
  } else {
    CHECK_INVARIANT(memory.error().message.find("mount") != std::string::npos, "{}", memory.error().message);
    ::close(descriptor);
  }
  return 0;
}
