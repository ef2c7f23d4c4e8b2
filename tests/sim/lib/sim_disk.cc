#include "tests/sim/lib/sim_disk.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "fs/base/check.h"
#include "tests/sim/lib/sim_file.h"
#include "tests/sim/lib/sim_metadata.h"

namespace vmfs::sim {

bool changes_disk(Operation operation) {
  switch (operation) {
    case Operation::kReadSymlink:
    case Operation::kList:
    case Operation::kStat:
    case Operation::kGetTag:
    case Operation::kSpace:
    case Operation::kLock:
    case Operation::kRead:
    case Operation::kSeek:
      return false;
    default:
      return true;
  }
}

const char* to_string(Operation operation) {
  static constexpr const char* kNames[] = {"open",           "make directory", "remove directory",
                                           "remove",         "rename",         "make symlink",
                                           "read symlink",   "list",           "stat",
                                           "set attributes", "set tag",        "get tag",
                                           "sync directory", "space",          "lock",
                                           "read",           "write",          "sync data",
                                           "sync",           "truncate",       "allocate",
                                           "punch hole",     "seek",           "clone"};
  return kNames[static_cast<int>(operation)];
}

SimDisk::SimDisk(SimDiskOptions options, std::uint64_t seed, Clock* clock)
    : options_(std::move(options)), random_(seed), clock_(clock) {
  root_ = make_inode(FileType::kDirectory);
  root_->durable.stat = root_->live.stat;
}

// A directory that has moved into one that was below it is held by that one, and holds it in what the medium has.
SimDisk::~SimDisk() {
  for (const std::weak_ptr<Inode>& each : inodes_) {
    if (InodeRef inode = each.lock()) {
      inode->live.entries.clear();
      inode->durable.entries.clear();
    }
  }
}

std::int64_t SimDisk::now() const { return clock_ ? clock_->wall_ns() : 0; }

tl::unexpected<Error> SimDisk::refuse(int number, const std::string& path, Label label) const {
  return fail(kind_of_errno(number), number,
              fmt::format("{} ({}): {}", display(path), label, std::strerror(number)));
}

std::string SimDisk::display(const std::string& path) const {
  return options_.name + (path.empty() ? "" : ":" + path);
}

std::optional<int> SimDisk::before(Operation operation, Label label, const std::string& path) {
  std::function<std::optional<int>(const DiskCall&)> hook;
  {
    std::lock_guard guard(mutex_);
    ++calls_;
    if (stopped_) return EIO;
    if (changes_disk(operation)) {
      ++changing_calls_;
      if (stop_in_ > 0 && --stop_in_ == 0) {
        stopped_ = true;
        return EIO;
      }
    }
    hook = hook_;
  }
  if (hook)
    if (std::optional<int> number = hook({operation, label, path})) {
      std::lock_guard guard(mutex_);
      ++failures_;
      return number;
    }
  std::lock_guard guard(mutex_);
  if (stopped_) return EIO;
  for (auto rule = rules_.begin(); rule != rules_.end(); ++rule) {
    if (std::string_view(label).substr(0, rule->label.size()) != rule->label) continue;
    if (rule->operation && *rule->operation != operation) continue;
    if (rule->in > 1) {
      --rule->in;
      continue;
    }
    const int number = rule->number;
    ++failures_;
    if (!rule->always) rules_.erase(rule);
    return number;
  }
  return std::nullopt;
}

InodeRef SimDisk::make_inode(FileType type) {
  auto inode = std::make_shared<Inode>();
  inode->number = next_inode_++;
  inode->type = type;
  FileStat& stat = inode->live.stat;
  stat.type = type;
  stat.permissions = type == FileType::kRegular ? 0600 : type == FileType::kDirectory ? 0700 : 0777;
  stat.atime_ns = stat.mtime_ns = stat.ctime_ns = now();
  inode->durable.stat = stat;
  inodes_.push_back(inode);
  return inode;
}

Result<InodeRef> SimDisk::find(const std::string& path, Label label) const {
  InodeRef at = root_;
  std::size_t start = 0;
  while (start < path.size()) {
    std::size_t slash = std::min(path.find('/', start), path.size());
    if (at->type != FileType::kDirectory) return refuse(ENOTDIR, path, label);
    auto entry = at->live.entries.find(path.substr(start, slash - start));
    if (entry == at->live.entries.end()) return refuse(ENOENT, path, label);
    at = entry->second;
    start = slash + 1;
  }
  return at;
}

Result<SimDisk::Place> SimDisk::find_place(const std::string& path, Label label) const {
  if (path.empty()) return refuse(EINVAL, path, label);
  const std::size_t slash = path.rfind('/');
  VMFS_ASSIGN(InodeRef directory,
              find(slash == std::string::npos ? "" : path.substr(0, slash), label));
  if (directory->type != FileType::kDirectory) return refuse(ENOTDIR, path, label);
  std::string name = slash == std::string::npos ? path : path.substr(slash + 1);
  if (name.empty() || name == "." || name == "..") return refuse(EINVAL, path, label);
  if (name.size() > 255) return refuse(ENAMETOOLONG, path, label);
  return Place{directory, name};
}

#define SIM_BEFORE(operation, path)                               \
  if (std::optional<int> number = before(operation, label, path)) \
    return refuse(*number, path, label);                          \
  std::lock_guard guard(mutex_)

Result<std::unique_ptr<File>> SimDisk::open(const std::string& path, OpenMode mode, Label label) {
  SIM_BEFORE(Operation::kOpen, path);
  VMFS_ASSIGN(Place place, find_place(path, label));
  auto entry = place.directory->live.entries.find(place.name);
  InodeRef inode;
  if (entry != place.directory->live.entries.end()) {
    if (mode == OpenMode::kCreate) return refuse(EEXIST, path, label);
    inode = entry->second;
    if (inode->type == FileType::kDirectory) return refuse(EISDIR, path, label);
    if (inode->type == FileType::kSymlink) return refuse(ELOOP, path, label);
  } else {
    if (mode != OpenMode::kCreate && mode != OpenMode::kCreateOrOpen)
      return refuse(ENOENT, path, label);
    inode = make_inode(FileType::kRegular);
    link(place.directory, place.name, inode, true);
  }
  return std::make_unique<SimFile>(*this, inode, path, mode != OpenMode::kRead, life_);
}

void SimDisk::link(const InodeRef& directory, const std::string& name, const InodeRef& inode,
                   bool created) {
  directory->live.entries[name] = inode;
  directory->live.stat.mtime_ns = now();
  MetadataChange change;
  change.touched = {directory};
  if (created) change.created = inode;
  change.named = inode;
  change.apply = [directory, name, inode] { directory->durable.entries[name] = inode; };
  log_change(std::move(change));
}

Result<> SimDisk::make_directory(const std::string& path, Label label) {
  SIM_BEFORE(Operation::kMakeDirectory, path);
  VMFS_ASSIGN(Place place, find_place(path, label));
  if (place.directory->live.entries.contains(place.name)) return refuse(EEXIST, path, label);
  link(place.directory, place.name, make_inode(FileType::kDirectory), true);
  return {};
}

Result<> SimDisk::make_symlink(const std::string& path, const std::string& target, Label label) {
  SIM_BEFORE(Operation::kMakeSymlink, path);
  VMFS_ASSIGN(Place place, find_place(path, label));
  if (place.directory->live.entries.contains(place.name)) return refuse(EEXIST, path, label);
  InodeRef inode = make_inode(FileType::kSymlink);
  inode->target = target;
  inode->live.stat.size = inode->durable.stat.size = target.size();
  link(place.directory, place.name, inode, true);
  return {};
}

Result<> SimDisk::remove_directory(const std::string& path, Label label) {
  SIM_BEFORE(Operation::kRemoveDirectory, path);
  VMFS_ASSIGN(Place place, find_place(path, label));
  VMFS_ASSIGN(InodeRef inode, find(path, label));
  if (inode->type != FileType::kDirectory) return refuse(ENOTDIR, path, label);
  if (!inode->live.entries.empty()) return refuse(ENOTEMPTY, path, label);
  place.directory->live.entries.erase(place.name);
  MetadataChange change;
  // The removed directory's own changes come before: it can only go when it is empty on the medium
  // too.
  change.touched = {place.directory, inode};
  change.apply = [place] { place.directory->durable.entries.erase(place.name); };
  log_change(std::move(change));
  return {};
}

Result<> SimDisk::remove(const std::string& path, Label label) {
  SIM_BEFORE(Operation::kRemove, path);
  VMFS_ASSIGN(Place place, find_place(path, label));
  VMFS_ASSIGN(InodeRef inode, find(path, label));
  if (inode->type == FileType::kDirectory) return refuse(EISDIR, path, label);
  place.directory->live.entries.erase(place.name);
  inode->live.stat.links = 0;
  MetadataChange change;
  change.touched = {place.directory};
  change.apply = [place] { place.directory->durable.entries.erase(place.name); };
  log_change(std::move(change));
  return {};
}

Result<> SimDisk::rename(const std::string& from, const std::string& to, bool replace,
                         Label label) {
  SIM_BEFORE(Operation::kRename, from);
  VMFS_ASSIGN(Place source, find_place(from, label));
  VMFS_ASSIGN(InodeRef inode, find(from, label));
  VMFS_ASSIGN(Place target, find_place(to, label));
  if (inode->type == FileType::kDirectory && (to + "/").starts_with(from + "/") && to != from)
    return refuse(EINVAL, to, label);
  auto entry = target.directory->live.entries.find(target.name);
  MetadataChange change;
  change.touched = {source.directory, target.directory};
  change.named = inode;
  if (entry != target.directory->live.entries.end()) {
    if (!replace) return refuse(EEXIST, to, label);
    InodeRef old = entry->second;
    if (old == inode) return {};
    const bool directory = inode->type == FileType::kDirectory;
    if (directory && old->type != FileType::kDirectory) return refuse(ENOTDIR, to, label);
    if (!directory && old->type == FileType::kDirectory) return refuse(EISDIR, to, label);
    if (!old->live.entries.empty()) return refuse(ENOTEMPTY, to, label);
    if (directory) change.touched.push_back(old);
    old->live.stat.links = 0;
  }
  source.directory->live.entries.erase(source.name);
  target.directory->live.entries[target.name] = inode;
  change.apply = [source, target, inode] {
    source.directory->durable.entries.erase(source.name);
    target.directory->durable.entries[target.name] = inode;
  };
  log_change(std::move(change));
  return {};
}

Result<std::string> SimDisk::read_symlink(const std::string& path, Label label) {
  SIM_BEFORE(Operation::kReadSymlink, path);
  VMFS_ASSIGN(InodeRef inode, find(path, label));
  if (inode->type != FileType::kSymlink) return refuse(EINVAL, path, label);
  return inode->target;
}

Result<std::vector<DirectoryEntry>> SimDisk::list(const std::string& path, Label label) {
  SIM_BEFORE(Operation::kList, path);
  VMFS_ASSIGN(InodeRef inode, find(path, label));
  if (inode->type != FileType::kDirectory) return refuse(ENOTDIR, path, label);
  std::vector<DirectoryEntry> entries;
  for (const auto& [name, entry] : inode->live.entries) entries.push_back({name, entry->type});
  for (std::size_t i = entries.size(); i > 1; --i)  // nobody may rely on an order
    std::swap(entries[i - 1], entries[random_.below(i)]);
  return entries;
}

Result<FileStat> SimDisk::stat(const std::string& path, Label label) {
  SIM_BEFORE(Operation::kStat, path);
  VMFS_ASSIGN(InodeRef inode, find(path, label));
  FileStat stat = inode->live.stat;
  stat.allocated = inode->live.pages.count() * kPage;
  return stat;
}

namespace {
void change_attributes(FileStat& stat, const FileAttributes& set) {
  if (set.permissions) stat.permissions = *set.permissions & 07777;
  if (set.uid) stat.uid = *set.uid;
  if (set.gid) stat.gid = *set.gid;
  if (set.atime_ns) stat.atime_ns = *set.atime_ns;
  if (set.mtime_ns) stat.mtime_ns = *set.mtime_ns;
}
}  // namespace

void SimDisk::change_attributes_of(const InodeRef& inode, const FileAttributes& set) {
  FileAttributes kept = set;
  if (inode->type == FileType::kSymlink) kept.permissions.reset();
  change_attributes(inode->live.stat, kept);
  inode->live.stat.ctime_ns = now();
  MetadataChange change;
  change.kind = MetadataChange::Kind::kAttributes;
  change.touched = {inode};
  change.apply = [inode, kept] { change_attributes(inode->durable.stat, kept); };
  log_change(std::move(change));
}

Result<> SimDisk::set_attributes(const std::string& path, const FileAttributes& set, Label label) {
  SIM_BEFORE(Operation::kSetAttributes, path);
  VMFS_ASSIGN(InodeRef inode, find(path, label));
  change_attributes_of(inode, set);
  return {};
}

Result<> SimDisk::set_tag(const std::string& path, std::string_view name, ByteView value,
                          Label label) {
  SIM_BEFORE(Operation::kSetTag, path);
  VMFS_ASSIGN(InodeRef inode, find(path, label));
  Bytes bytes(value.begin(), value.end());
  inode->live.tags[std::string(name)] = bytes;
  MetadataChange change;
  change.kind = MetadataChange::Kind::kAttributes;
  change.touched = {inode};
  change.apply = [inode, name = std::string(name), bytes] { inode->durable.tags[name] = bytes; };
  log_change(std::move(change));
  return {};
}

Result<Bytes> SimDisk::get_tag(const std::string& path, std::string_view name, Label label) {
  SIM_BEFORE(Operation::kGetTag, path);
  VMFS_ASSIGN(InodeRef inode, find(path, label));
  auto tag = inode->live.tags.find(name);
  if (tag == inode->live.tags.end()) return refuse(ENODATA, path, label);
  return tag->second;
}

Result<> SimDisk::sync_directory(const std::string& path, Label label) {
  SIM_BEFORE(Operation::kSyncDirectory, path);
  VMFS_ASSIGN(InodeRef inode, find(path, label));
  if (inode->type != FileType::kDirectory) return refuse(ENOTDIR, path, label);
  commit_metadata(inode, true);
  return {};
}

std::uint64_t SimDisk::used_locked() const {
  std::uint64_t pages = 0;
  for (const auto& weak : inodes_)
    if (InodeRef inode = weak.lock()) pages += inode->live.pages.count();
  return pages * kPage;
}

std::uint64_t SimDisk::used() const {
  std::lock_guard guard(mutex_);
  return used_locked();
}

Result<DiskSpace> SimDisk::space(Label label) {
  SIM_BEFORE(Operation::kSpace, "");
  DiskSpace space;
  const std::uint64_t used = used_locked();
  space.total = options_.capacity;
  space.available = used < options_.capacity ? options_.capacity - used : 0;
  space.files_total = options_.files_max;
  space.files_free = space.files_total - std::min<std::uint64_t>(inodes_.size(), space.files_total);
  space.file_size_max = options_.file_size_max;
  return space;
}

class SimDisk::Lock : public DiskLock {
 public:
  Lock(SimDisk& disk, std::uint64_t inode, std::uint64_t life)
      : disk_(disk), inode_(inode), life_(life) {}
  ~Lock() override {
    std::lock_guard guard(disk_.mutex_);
    std::erase(disk_.locks_, std::pair(inode_, life_));
  }

 private:
  SimDisk& disk_;
  const std::uint64_t inode_, life_;
};

Result<std::unique_ptr<DiskLock>> SimDisk::lock(const std::string& path, Label label) {
  SIM_BEFORE(Operation::kLock, path);
  VMFS_ASSIGN(Place place, find_place(path, label));
  InodeRef& inode = place.directory->live.entries[place.name];
  if (!inode) {
    InodeRef made = make_inode(FileType::kRegular);
    link(place.directory, place.name, made, true);
  }
  const auto key = std::pair(inode->number, life_);
  if (std::find(locks_.begin(), locks_.end(), key) != locks_.end())
    return refuse(EBUSY, path, label);
  locks_.push_back(key);
  return std::make_unique<Lock>(*this, inode->number, life_);
}

}  // namespace vmfs::sim
