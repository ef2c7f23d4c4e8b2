#include "tests/sim/lib/sim_inode.h"

#include <algorithm>
#include <cstring>

namespace vmfs::sim {

void Pages::read(std::uint64_t offset, std::span<std::byte> out) const {
  while (!out.empty()) {
    const std::uint64_t within = offset % kPage;
    const std::size_t size = std::min<std::size_t>(out.size(), kPage - within);
    auto entry = pages_.find(offset / kPage);
    if (entry == pages_.end() || !entry->second)
      std::memset(out.data(), 0, size);
    else
      std::memcpy(out.data(), entry->second->data() + within, size);
    out = out.subspan(size);
    offset += size;
  }
}

void Pages::write(std::uint64_t offset, ByteView bytes) {
  while (!bytes.empty()) {
    const std::uint64_t within = offset % kPage;
    const std::size_t size = std::min<std::size_t>(bytes.size(), kPage - within);
    PageRef& page = pages_[offset / kPage];
    // The live and the durable content share pages until one of them changes.
    if (page && page.use_count() == 1) {
      std::memcpy(const_cast<Page&>(*page).data() + within, bytes.data(), size);
    } else {
      auto fresh = page ? std::make_shared<Page>(*page) : std::make_shared<Page>();
      std::memcpy(fresh->data() + within, bytes.data(), size);
      page = std::move(fresh);
    }
    bytes = bytes.subspan(size);
    offset += size;
  }
}

void Pages::punch(std::uint64_t offset, std::uint64_t end) {
  static constexpr Page kZeros{};
  for (auto entry = pages_.lower_bound(offset / kPage);
       entry != pages_.end() && entry->first * kPage < end;) {
    const std::uint64_t start = entry->first * kPage;
    if (start >= offset && start + kPage <= end) {
      entry = pages_.erase(entry);
      continue;
    }
    const std::uint64_t from = std::max(offset, start), to = std::min(end, start + kPage);
    ++entry;
    if (from < to) write(from, ByteView(kZeros).first(to - from));
  }
}

void Pages::allocate(std::uint64_t offset, std::uint64_t end) {
  for (std::uint64_t page = offset / kPage; page * kPage < end; ++page) pages_.try_emplace(page);
}

std::size_t Pages::missing(std::uint64_t offset, std::uint64_t end) const {
  std::size_t missing = 0;
  for (std::uint64_t page = offset / kPage; page * kPage < end; ++page)
    if (!pages_.contains(page)) ++missing;
  return missing;
}

void Pages::copy_page(const Pages& from, std::uint64_t page) {
  if (auto entry = from.pages_.find(page); entry != from.pages_.end())
    pages_[page] = entry->second;
  else
    pages_.erase(page);
}

}  // namespace vmfs::sim
