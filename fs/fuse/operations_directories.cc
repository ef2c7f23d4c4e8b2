// Reading directories.
#include <cerrno>

#include "fs/fuse/operations.h"

namespace vmfs {
namespace {

void open_directory(fuse_req_t request, fuse_ino_t, fuse_file_info* info) noexcept {
  Core& core = core_of(request);
  info->fh = core.directories().open();
  if (fuse_reply_open(request, info) == -ENOENT) core.directories().close(info->fh);
}

void release_directory(fuse_req_t request, fuse_ino_t, fuse_file_info* info) noexcept {
  Core& core = core_of(request);
  core.directories().close(info->fh);
  fuse_reply_err(request, 0);
}

// Puts entries into the thread's buffer until it is full.
class EntryWriter {
 public:
  EntryWriter(fuse_req_t request, std::size_t size, bool plus)
      : request_(request),
        out_(reinterpret_cast<char*>(current_request()->scratch.data())),
        size_(std::min(size, current_request()->scratch.size())),
        plus_(plus) {}

  // False: no room.
  bool add(const char* name, const fuse_entry_param& entry, std::uint64_t position) {
    const auto offset = static_cast<off_t>(position);
    const std::size_t needed =
        plus_ ? fuse_add_direntry_plus(request_, out_ + used_, size_ - used_, name, &entry, offset)
              : fuse_add_direntry(request_, out_ + used_, size_ - used_, name, &entry.attr, offset);
    if (needed > size_ - used_) return false;
    used_ += needed;
    return true;
  }
  void answer() { fuse_reply_buf(request_, out_, used_); }

 private:
  fuse_req_t request_;
  char* out_;
  std::size_t size_;
  std::size_t used_ = 0;
  bool plus_;
};

// An entry without node id: the kernel takes the name and the type and looks up by itself.
fuse_entry_param bare_entry(ObjectId object, FileType type) {
  fuse_entry_param entry{};
  entry.attr.st_ino = raw(object);
  entry.attr.st_mode = file_type_bits(type);
  return entry;
}

void read_entries(fuse_req_t request, ObjectId directory, std::size_t size, off_t offset,
                  const fuse_file_info* info, bool plus) {
  Core& core = core_of(request);
  const auto position = static_cast<std::uint64_t>(offset);
  auto listing = core.directories().listing(core.volume(), directory, info->fh, position == 0);
  if (!listing) return answer_error(request, listing.error());
  const auto& entries = (*listing)->entries();

  EntryWriter writer(request, size, plus);
  bool room = true;
  if (position < Listing::kSelf)
    room = writer.add(".", bare_entry(directory, FileType::kDirectory), Listing::kSelf);
  if (room && position < Listing::kParent)
    room = writer.add("..", bare_entry(kRootObject, FileType::kDirectory), Listing::kParent);
  for (std::size_t i = (*listing)->after(position); room && i < entries.size(); ++i) {
    const Listing::Entry& entry = entries[i];
    fuse_entry_param described = bare_entry(entry.object, entry.type);
    if (plus) {
      // Looked up by name and not by object: it may have gone, or be another one by now.
      auto found = core.volume().lookup(directory, entry.name);
      if (!found) continue;
      described = entry_of(*found, core.name_seconds(), core.attribute_seconds(*found));
    }
    room = writer.add(entry.name.c_str(), described, entry.position);
  }
  writer.answer();
}

void read_directory(fuse_req_t request, fuse_ino_t directory, std::size_t size, off_t offset,
                    fuse_file_info* info) noexcept {
  read_entries(request, ObjectId{directory}, size, offset, info, false);
}

void read_directory_plus(fuse_req_t request, fuse_ino_t directory, std::size_t size, off_t offset,
                         fuse_file_info* info) noexcept {
  read_entries(request, ObjectId{directory}, size, offset, info, true);
}

}  // namespace

void add_directory_operations(fuse_lowlevel_ops& operations) {
  operations.opendir = open_directory;
  operations.releasedir = release_directory;
  operations.readdir = read_directory;
  operations.readdirplus = read_directory_plus;
}

}  // namespace vmfs
