// The yardstick: a directory shown through libfuse's low-level interface with as little between as
// can be. Reads and writes go to the backing file through the page cache, by file descriptor, so
// that libfuse may splice; nothing is checked, logged or remembered.
//
//   pass_through DIRECTORY MOUNTPOINT [--threads N] [--parallel]
//
// --parallel lets the kernel send direct writes to one file side by side, as vmfs does.
#define FUSE_USE_VERSION 312
#include <dirent.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <linux/fuse.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

namespace {

struct Node {
  int path_descriptor = -1;  // O_PATH
  std::pair<dev_t, ino_t> identity;
  std::uint64_t lookups = 0;  // guarded by Tree::mutex
};

struct Tree {
  std::mutex mutex;
  std::map<std::pair<dev_t, ino_t>, std::unique_ptr<Node>> nodes;
  Node root;
  bool parallel = false;
};
Tree tree;

Node* node_of(fuse_ino_t number) {
  return number == FUSE_ROOT_ID ? &tree.root : reinterpret_cast<Node*>(number);
}
int descriptor_of(fuse_ino_t number) { return node_of(number)->path_descriptor; }
std::string link_to(int descriptor) { return "/proc/self/fd/" + std::to_string(descriptor); }
int file_of(const fuse_file_info* info) { return static_cast<int>(info->fh); }

// 0 or an errno; on success the kernel owns one lookup of the node.
int find(fuse_ino_t parent, const char* name, fuse_entry_param* entry) {
  const int descriptor = ::openat(descriptor_of(parent), name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
  if (descriptor < 0) return errno;
  struct stat found;
  if (::fstatat(descriptor, "", &found, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) != 0) {
    const int number = errno;
    ::close(descriptor);
    return number;
  }
  std::lock_guard lock(tree.mutex);
  auto& slot = tree.nodes[{found.st_dev, found.st_ino}];
  if (slot) {
    ::close(descriptor);
  } else {
    slot = std::make_unique<Node>();
    slot->path_descriptor = descriptor;
    slot->identity = {found.st_dev, found.st_ino};
  }
  ++slot->lookups;
  *entry = {};
  entry->ino = reinterpret_cast<fuse_ino_t>(slot.get());
  entry->attr = found;
  entry->attr_timeout = entry->entry_timeout = 1.0;
  return 0;
}

void forget_node(fuse_ino_t number, std::uint64_t lookups) {
  if (number == FUSE_ROOT_ID) return;
  Node* node = node_of(number);
  std::lock_guard lock(tree.mutex);
  if ((node->lookups -= lookups) > 0) return;
  ::close(node->path_descriptor);
  tree.nodes.erase(node->identity);
}

void do_lookup(fuse_req_t request, fuse_ino_t parent, const char* name) {
  fuse_entry_param entry;
  if (int error = find(parent, name, &entry))
    fuse_reply_err(request, error);
  else
    fuse_reply_entry(request, &entry);
}

void do_forget(fuse_req_t request, fuse_ino_t number, std::uint64_t lookups) {
  forget_node(number, lookups);
  fuse_reply_none(request);
}

void do_getattr(fuse_req_t request, fuse_ino_t number, fuse_file_info*) {
  struct stat found;
  if (::fstatat(descriptor_of(number), "", &found, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) != 0)
    fuse_reply_err(request, errno);
  else
    fuse_reply_attr(request, &found, 1.0);
}

void do_setattr(fuse_req_t request, fuse_ino_t number, struct stat* wanted, int what,
                fuse_file_info* info) {
  const std::string path = link_to(descriptor_of(number));
  int result = 0;
  if ((what & FUSE_SET_ATTR_MODE) != 0) result = ::chmod(path.c_str(), wanted->st_mode);
  if (result == 0 && (what & FUSE_SET_ATTR_SIZE) != 0)
    result = info != nullptr ? ::ftruncate(file_of(info), wanted->st_size)
                             : ::truncate(path.c_str(), wanted->st_size);
  if (result == 0 && (what & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID)) != 0)
    result = ::chown(path.c_str(), (what & FUSE_SET_ATTR_UID) != 0 ? wanted->st_uid : -1u,
                     (what & FUSE_SET_ATTR_GID) != 0 ? wanted->st_gid : -1u);
  if (result != 0)
    fuse_reply_err(request, errno);
  else
    do_getattr(request, number, info);
}

int open_flags(const fuse_file_info* info) {
  return (info->flags & ~(O_NOFOLLOW | O_DIRECT)) | O_CLOEXEC;
}

// libfuse 3.14 has no field for FOPEN_PARALLEL_DIRECT_WRITES: with it, the reply is written as the
// kernel's own struct.
fuse_open_out raw_open(const fuse_file_info* info) {
  fuse_open_out out{};
  out.fh = info->fh;
  out.open_flags = FOPEN_PARALLEL_DIRECT_WRITES;
  return out;
}

void do_open(fuse_req_t request, fuse_ino_t number, fuse_file_info* info) {
  const int file = ::open(link_to(descriptor_of(number)).c_str(), open_flags(info) & ~O_CREAT);
  if (file < 0) {
    fuse_reply_err(request, errno);
    return;
  }
  info->fh = static_cast<std::uint64_t>(file);
  if (tree.parallel) {
    const fuse_open_out out = raw_open(info);
    fuse_reply_buf(request, reinterpret_cast<const char*>(&out), sizeof out);
  } else {
    fuse_reply_open(request, info);
  }
}

void do_create(fuse_req_t request, fuse_ino_t parent, const char* name, mode_t mode,
               fuse_file_info* info) {
  const int file = ::openat(descriptor_of(parent), name, open_flags(info) | O_CREAT, mode);
  if (file < 0) {
    fuse_reply_err(request, errno);
    return;
  }
  info->fh = static_cast<std::uint64_t>(file);
  fuse_entry_param entry;
  if (int error = find(parent, name, &entry)) {
    ::close(file);
    fuse_reply_err(request, error);
    return;
  }
  fuse_reply_create(request, &entry, info);
}

void do_release(fuse_req_t request, fuse_ino_t, fuse_file_info* info) {
  ::close(file_of(info));
  fuse_reply_err(request, 0);
}

void do_read(fuse_req_t request, fuse_ino_t, std::size_t size, off_t offset, fuse_file_info* info) {
  fuse_bufvec data = FUSE_BUFVEC_INIT(size);
  data.buf[0].flags = static_cast<fuse_buf_flags>(FUSE_BUF_IS_FD | FUSE_BUF_FD_SEEK);
  data.buf[0].fd = file_of(info);
  data.buf[0].pos = offset;
  fuse_reply_data(request, &data, FUSE_BUF_SPLICE_MOVE);
}

void do_write_buf(fuse_req_t request, fuse_ino_t, fuse_bufvec* from, off_t offset,
                  fuse_file_info* info) {
  fuse_bufvec to = FUSE_BUFVEC_INIT(fuse_buf_size(from));
  to.buf[0].flags = static_cast<fuse_buf_flags>(FUSE_BUF_IS_FD | FUSE_BUF_FD_SEEK);
  to.buf[0].fd = file_of(info);
  to.buf[0].pos = offset;
  const ssize_t done = fuse_buf_copy(&to, from, static_cast<fuse_buf_copy_flags>(0));
  if (done < 0)
    fuse_reply_err(request, static_cast<int>(-done));
  else
    fuse_reply_write(request, static_cast<std::size_t>(done));
}

void do_flush(fuse_req_t request, fuse_ino_t, fuse_file_info*) { fuse_reply_err(request, 0); }

void do_fsync(fuse_req_t request, fuse_ino_t, int data_only, fuse_file_info* info) {
  const int file = file_of(info);
  fuse_reply_err(request, (data_only != 0 ? ::fdatasync(file) : ::fsync(file)) == 0 ? 0 : errno);
}

void do_fallocate(fuse_req_t request, fuse_ino_t, int mode, off_t offset, off_t length,
                  fuse_file_info* info) {
  fuse_reply_err(request, ::fallocate(file_of(info), mode, offset, length) == 0 ? 0 : errno);
}

void do_lseek(fuse_req_t request, fuse_ino_t, off_t offset, int whence, fuse_file_info* info) {
  const off_t found = ::lseek(file_of(info), offset, whence);
  if (found < 0)
    fuse_reply_err(request, errno);
  else
    fuse_reply_lseek(request, found);
}

void do_unlink(fuse_req_t request, fuse_ino_t parent, const char* name) {
  fuse_reply_err(request, ::unlinkat(descriptor_of(parent), name, 0) == 0 ? 0 : errno);
}

void do_statfs(fuse_req_t request, fuse_ino_t number) {
  struct statvfs found;
  if (::fstatvfs(descriptor_of(number), &found) != 0)
    fuse_reply_err(request, errno);
  else
    fuse_reply_statfs(request, &found);
}

// Enough for `ls`: the whole directory is read for each call.
void do_readdir(fuse_req_t request, fuse_ino_t number, std::size_t size, off_t offset,
                fuse_file_info*) {
  DIR* directory = ::opendir(link_to(descriptor_of(number)).c_str());
  if (directory == nullptr) {
    fuse_reply_err(request, errno);
    return;
  }
  std::string buffer(size, '\0');
  std::size_t used = 0;
  off_t place = 0;
  while (const dirent* entry = ::readdir(directory)) {
    if (++place <= offset) continue;
    struct stat shown {};
    shown.st_ino = entry->d_ino;
    shown.st_mode = static_cast<mode_t>(entry->d_type) << 12;
    const std::size_t needed =
        fuse_add_direntry(request, &buffer[used], size - used, entry->d_name, &shown, place);
    if (needed > size - used) break;
    used += needed;
  }
  ::closedir(directory);
  fuse_reply_buf(request, buffer.data(), used);
}

}  // namespace

int main(int argc, char** argv) {
  const char* source = nullptr;
  const char* mount_point = nullptr;
  unsigned threads = 10;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--threads") == 0 && i + 1 < argc)
      threads = static_cast<unsigned>(std::atoi(argv[++i]));
    else if (std::strcmp(argv[i], "--parallel") == 0)
      tree.parallel = true;
    else if (source == nullptr)
      source = argv[i];
    else
      mount_point = argv[i];
  }
  if (mount_point == nullptr || threads == 0) {
    std::fprintf(stderr, "usage: pass_through DIRECTORY MOUNTPOINT [--threads N] [--parallel]\n");
    return 2;
  }
  tree.root.path_descriptor = ::open(source, O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (tree.root.path_descriptor < 0) {
    std::perror(source);
    return 1;
  }
  fuse_lowlevel_ops operations{};
  operations.lookup = do_lookup;
  operations.forget = do_forget;
  operations.getattr = do_getattr;
  operations.setattr = do_setattr;
  operations.open = do_open;
  operations.create = do_create;
  operations.release = do_release;
  operations.read = do_read;
  operations.write_buf = do_write_buf;
  operations.flush = do_flush;
  operations.fsync = do_fsync;
  operations.fallocate = do_fallocate;
  operations.lseek = do_lseek;
  operations.unlink = do_unlink;
  operations.statfs = do_statfs;
  operations.readdir = do_readdir;

  fuse_args arguments = FUSE_ARGS_INIT(1, argv);
  fuse_session* session = fuse_session_new(&arguments, &operations, sizeof operations, nullptr);
  if (session == nullptr || fuse_set_signal_handlers(session) != 0 ||
      fuse_session_mount(session, mount_point) != 0)
    return 1;
  fuse_loop_config* config = fuse_loop_cfg_create();
  fuse_loop_cfg_set_clone_fd(config, 1);
  fuse_loop_cfg_set_max_threads(config, threads);
  fuse_loop_cfg_set_idle_threads(config, threads);
  const int result = fuse_session_loop_mt(session, config);
  fuse_session_unmount(session);
  fuse_loop_cfg_destroy(config);
  fuse_remove_signal_handlers(session);
  fuse_session_destroy(session);
  return result == 0 ? 0 : 1;
}
