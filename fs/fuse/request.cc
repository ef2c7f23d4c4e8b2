#include "fs/fuse/request.h"

#include <algorithm>

namespace vmfs {

RequestContext*& current_request() {
  thread_local RequestContext* current = nullptr;
  return current;
}

SlotTable::SlotTable(ConnectionMemory& memory) : memory_(memory) {
  const std::uint32_t used = std::min(memory.header().slots_used.load(), memory.header().slot_count);
  for (std::uint32_t slot = used; slot-- > 0;) {
    const std::uint64_t unique = memory.slots()[slot].load();
    if (unique == 0 || !left_.emplace(unique, slot).second) {
      memory.slots()[slot].store(0);
      free_.push_back(slot);
    }
  }
}

std::uint32_t SlotTable::acquire() {
  std::lock_guard lock(mutex_);
  if (!free_.empty()) {
    const std::uint32_t slot = free_.back();
    free_.pop_back();
    return slot;
  }
  const std::uint32_t slot = memory_.header().slots_used.load(std::memory_order_relaxed);
  if (slot >= memory_.header().slot_count) return kNone;
  memory_.header().slots_used.store(slot + 1);
  return slot;
}

void SlotTable::release(std::uint32_t slot) {
  answered(slot);
  if (slot == kNone) return;
  std::lock_guard lock(mutex_);
  free_.push_back(slot);
}

std::uint32_t SlotTable::claim_left(std::uint64_t unique) {
  std::lock_guard lock(mutex_);
  auto found = left_.find(unique);
  if (found == left_.end()) return kNone;
  const std::uint32_t slot = found->second;
  left_.erase(found);
  return slot;
}

}  // namespace vmfs
