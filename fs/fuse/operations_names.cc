// Operations on names.
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/stat.h>

#include <cerrno>

#include "fs/fuse/operations.h"
#include "fs/store/store.h"

namespace vmfs {
namespace {

// In a directory with the set-group-id bit, what is made belongs to the directory's group, and a
// directory made there has the bit too.
Caller maker_of(Core& core, fuse_req_t request, ObjectId parent, bool& inherits) {
  Caller caller = caller_of(core, request);
  auto directory = core.volume().attributes(parent);
  inherits = directory && (directory->stat.permissions & S_ISGID) != 0;
  if (inherits) caller.gid = directory->stat.gid;
  return caller;
}

// .snapshots and what is in it come to be without a change of the name space.
bool may_appear(ObjectId parent, std::string_view name) {
  return parent == kSnapshotsDirectory || (parent == kRootObject && name == kSnapshotsName);
}

void lookup(fuse_req_t request, fuse_ino_t parent, const char* name) noexcept {
  Core& core = core_of(request);
  auto found = core.volume().lookup(ObjectId{parent}, name);
  if (found) return answer_entry(core, request, *found);
  if (found.error().kind == ErrorKind::kNotFound && error_number(found.error()) == ENOENT) {
    if (const double seconds = core.name_seconds(); seconds > 0 && !may_appear(ObjectId{parent}, name)) {
      fuse_entry_param nothing{};
      nothing.entry_timeout = seconds;
      fuse_reply_entry(request, &nothing);
      return;
    }
  }
  answer_error(request, found.error());
}

void create(fuse_req_t request, fuse_ino_t parent_number, const char* name, mode_t mode,
            fuse_file_info* info) noexcept {
  Core& core = core_of(request);
  const ObjectId parent{parent_number};
  bool inherits = false;
  const Caller caller = maker_of(core, request, parent, inherits);
  auto made = core.volume().create(caller, parent, name, mode & 07777);
  if (!made) {
    // Somebody else was faster. Whoever did not insist on being the first looks again, which is what
    // the kernel does on ESTALE.
    if (made.error().kind == ErrorKind::kExists && (info->flags & O_EXCL) == 0) {
      fuse_reply_err(request, ESTALE);
      return;
    }
    return answer_error(core, request, made.error(), kNameSpace);
  }
  // What comes again may have been made, opened by others and changed long ago.
  auto opened = open_handle(core, made->object, static_cast<std::uint32_t>(info->flags), /*made=*/!caller.resent);
  if (!opened) return answer_error(request, opened.error());
  struct Answer {
    fuse_entry_out entry;
    fuse_open_out open;
  } answer{entry_answer(*made, core.name_seconds(), core.attribute_seconds(*made)), *opened};
  static_assert(sizeof answer == sizeof(fuse_entry_out) + sizeof(fuse_open_out));
  answer_open(core, request, opened->fh, [answer](fuse_req_t waiting) {
    return fuse_reply_buf(waiting, reinterpret_cast<const char*>(&answer), sizeof answer);
  });
}

void make_node(fuse_req_t request, fuse_ino_t parent_number, const char* name, mode_t mode,
               dev_t) noexcept {
  Core& core = core_of(request);
  const ObjectId parent{parent_number};
  if (!S_ISREG(mode)) {
    fuse_reply_err(request, EPERM);
    return;
  }
  bool inherits = false;
  const Caller caller = maker_of(core, request, parent, inherits);
  auto made = core.volume().create(caller, parent, name, mode & 07777);
  if (!made) return answer_error(core, request, made.error(), kNameSpace);
  answer_entry(core, request, *made);
}

void make_directory(fuse_req_t request, fuse_ino_t parent_number, const char* name,
                    mode_t mode) noexcept {
  Core& core = core_of(request);
  const ObjectId parent{parent_number};
  bool inherits = false;
  const Caller caller = maker_of(core, request, parent, inherits);
  const std::uint32_t permissions = (mode & 07777) | (inherits ? S_ISGID : 0);
  auto made = core.volume().make_directory(caller, parent, name, permissions);
  if (!made) return answer_error(core, request, made.error(), kNameSpace);
  answer_entry(core, request, *made);
}

void make_symlink(fuse_req_t request, const char* target, fuse_ino_t parent_number,
                  const char* name) noexcept {
  Core& core = core_of(request);
  const ObjectId parent{parent_number};
  bool inherits = false;
  const Caller caller = maker_of(core, request, parent, inherits);
  auto made = core.volume().make_symlink(caller, parent, name, target);
  if (!made) return answer_error(core, request, made.error(), kNameSpace);
  answer_entry(core, request, *made);
}

void read_symlink(fuse_req_t request, fuse_ino_t object) noexcept {
  Core& core = core_of(request);
  auto target = core.volume().read_symlink(ObjectId{object});
  if (!target) return answer_error(request, target.error());
  fuse_reply_readlink(request, target->c_str());
}

void remove_file(fuse_req_t request, fuse_ino_t parent_number, const char* name) noexcept {
  Core& core = core_of(request);
  const ObjectId parent{parent_number};
  auto done = core.volume().unlink(caller_of(core, request), parent, name);
  if (!done) return answer_error(core, request, done.error(), kNameSpace);
  fuse_reply_err(request, 0);
}

void remove_directory(fuse_req_t request, fuse_ino_t parent, const char* name) noexcept {
  Core& core = core_of(request);
  auto done = core.volume().remove_directory(caller_of(core, request), ObjectId{parent}, name);
  if (!done) return answer_error(core, request, done.error(), kNameSpace);
  fuse_reply_err(request, 0);
}

void rename(fuse_req_t request, fuse_ino_t from, const char* from_name, fuse_ino_t to,
            const char* to_name, unsigned flags) noexcept {
  Core& core = core_of(request);
  // Exchanging would be a record of its own, and white-outs are device nodes.
  if ((flags & ~static_cast<unsigned>(RENAME_NOREPLACE)) != 0) {
    fuse_reply_err(request, EINVAL);
    return;
  }
  auto done = core.volume().rename(caller_of(core, request), ObjectId{from}, from_name, ObjectId{to},
                                   to_name, (flags & RENAME_NOREPLACE) != 0);
  if (!done) return answer_error(core, request, done.error(), kNameSpace);
  fuse_reply_err(request, 0);
}

void link(fuse_req_t request, fuse_ino_t, fuse_ino_t, const char*) noexcept {
  fuse_reply_err(request, EPERM);
}

}  // namespace

void add_name_operations(fuse_lowlevel_ops& operations) {
  operations.lookup = lookup;
  operations.create = create;
  operations.mknod = make_node;
  operations.mkdir = make_directory;
  operations.symlink = make_symlink;
  operations.readlink = read_symlink;
  operations.unlink = remove_file;
  operations.rmdir = remove_directory;
  operations.rename = rename;
  operations.link = link;
}

}  // namespace vmfs
