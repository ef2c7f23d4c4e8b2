#include "fs/fuse/parked.h"

#include <algorithm>
#include <cstring>
#include <iterator>

#include "fs/fuse/kernel.h"

namespace vmfs {
namespace {

constexpr std::uint64_t kPage = 4096;

template <class Body>
Body body_of(const Bytes& message) {
  Body body{};
  if (message.size() >= sizeof(fuse_in_header) + sizeof body)
    std::memcpy(&body, message.data() + sizeof(fuse_in_header), sizeof body);
  return body;
}

// The text, with its end in the message, that begins there or after as many others.
std::string_view text_at(const Bytes& message, std::size_t begin, unsigned others) {
  const std::string_view all(reinterpret_cast<const char*>(message.data()), message.size());
  for (; others > 0 && begin < all.size(); --others) begin = std::min(all.find('\0', begin), all.size()) + 1;
  return begin < all.size() ? all.substr(begin, all.find('\0', begin) - begin) : std::string_view{};
}

std::uint64_t page_begin(std::uint64_t offset) { return offset / kPage * kPage; }
std::uint64_t page_end(std::uint64_t end) {
  return end > PageRange::kNoEnd - kPage ? PageRange::kNoEnd : page_begin(end + kPage - 1);
}

}  // namespace

bool PageRange::meets(const PageRange& other) const {
  return page_begin(offset) < page_end(other.end()) && page_begin(other.offset) < page_end(end());
}

bool ParkedRequest::locks_directory(std::uint64_t directory) const {
  return std::find(std::begin(directories), std::end(directories), directory) != std::end(directories);
}

PageRange ParkedRequest::pages() const {
  return PageRange::between(page_begin(offset), page_end(offset + std::max<std::uint64_t>(length, 1)));
}

void describe_locks(ParkedRequest& request, bool direct,
                    const std::function<std::uint64_t(std::uint64_t, std::string_view)>& directory_at) {
  fuse_in_header header{};
  std::memcpy(&header, request.message.data(), sizeof header);
  // A directory that is moved, removed or replaced is locked itself as well.
  const auto rename = [&](std::uint64_t target, std::size_t body_size) {
    const std::size_t names = sizeof header + body_size;
    request.directories[0] = header.nodeid;
    request.directories[1] = target;
    request.directories[2] = directory_at(header.nodeid, text_at(request.message, names, 0));
    request.directories[3] = directory_at(target, text_at(request.message, names, 1));
  };
  switch (header.opcode) {
    case FUSE_CREATE:
    case FUSE_MKNOD:
    case FUSE_MKDIR:
    case FUSE_SYMLINK:
    case FUSE_UNLINK:
    case FUSE_SETATTR:  // of a directory; an image's id names no directory
      request.directories[0] = header.nodeid;
      break;
    case FUSE_RMDIR:
      request.directories[0] = header.nodeid;
      request.directories[2] = directory_at(header.nodeid, text_at(request.message, sizeof header, 0));
      break;
    case FUSE_RENAME:
      rename(body_of<fuse_rename_in>(request.message).newdir, sizeof(fuse_rename_in));
      break;
    case FUSE_RENAME2:
      rename(body_of<fuse_rename2_in>(request.message).newdir, sizeof(fuse_rename2_in));
      break;
    case FUSE_WRITE:
      // Pages that were written through a mapping come from the cache whatever the handle says.
      if (const auto write = body_of<fuse_write_in>(request.message);
          !direct || (write.write_flags & FUSE_WRITE_CACHE) != 0) {
        request.image = header.nodeid;
        request.offset = write.offset;
        request.length = write.size;
      }
      break;
    default:
      break;
  }
}

void ParkedTable::add(std::shared_ptr<ParkedRequest> request) {
  std::lock_guard lock(mutex_);
  const std::uint64_t unique = request->context.unique;
  requests_.insert_or_assign(unique, std::move(request));
  size_.store(requests_.size(), std::memory_order_relaxed);
}

void ParkedTable::remove(const ParkedRequest& request) {
  std::lock_guard lock(mutex_);
  auto found = requests_.find(request.context.unique);
  if (found != requests_.end() && found->second.get() == &request) requests_.erase(found);
  size_.store(requests_.size(), std::memory_order_relaxed);
}

std::shared_ptr<ParkedRequest> ParkedTable::find(std::uint64_t unique) const {
  std::lock_guard lock(mutex_);
  auto found = requests_.find(unique);
  return found == requests_.end() ? nullptr : found->second;
}

bool ParkedTable::locks_directory(std::uint64_t directory) const {
  std::lock_guard lock(mutex_);
  return std::any_of(requests_.begin(), requests_.end(),
                     [&](const auto& entry) { return entry.second->locks_directory(directory); });
}

std::vector<PageRange> ParkedTable::locked_pages(std::uint64_t image, PageRange within) const {
  std::vector<PageRange> found;
  {
    std::lock_guard lock(mutex_);
    for (const auto& [unique, request] : requests_)
      if (request->image == image && request->pages().meets(within)) found.push_back(request->pages());
  }
  std::sort(found.begin(), found.end(),
            [](const PageRange& a, const PageRange& b) { return a.offset < b.offset; });
  std::vector<PageRange> locked;
  for (const PageRange& range : found) {
    if (!locked.empty() && range.offset <= locked.back().end())
      locked.back() = PageRange::between(locked.back().offset, std::max(locked.back().end(), range.end()));
    else
      locked.push_back(range);
  }
  return locked;
}

std::vector<std::shared_ptr<ParkedRequest>> ParkedTable::interrupted() const {
  std::vector<std::shared_ptr<ParkedRequest>> found;
  std::lock_guard lock(mutex_);
  for (const auto& [unique, request] : requests_)
    if (request->interrupted.load(std::memory_order_relaxed)) found.push_back(request);
  return found;
}

}  // namespace vmfs
