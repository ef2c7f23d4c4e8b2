#include "cli/setup.h"

#include <fmt/format.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <memory>

#include "cli/control.h"
#include "cli/file.h"
#include "cli/journal_size.h"
#include "cli/target.h"
#include "fs/base/sizes.h"
#include "fs/journal/identity.h"
#include "fs/seam/clock.h"
#include "net/link/address.h"

namespace vmfs {

namespace {

namespace stdfs = std::filesystem;

// Removes what was made, newest first, unless told that it is to stay.
class Undo {
 public:
  ~Undo() {
    if (kept_) return;
    std::error_code ignored;
    for (auto path = made_.rbegin(); path != made_.rend(); ++path) stdfs::remove_all(*path, ignored);
  }
  void made(const std::string& path) { made_.push_back(path); }
  // What comes to be in a directory that was there, and empty.
  void made_inside(const std::string& directory) { emptied_.push_back(directory); }
  void keep() { kept_ = true; }

  // Everything inside `directory` except what is always there.
  static std::vector<std::string> content(const std::string& directory) {
    std::vector<std::string> out;
    std::error_code failed;
    for (auto& entry : stdfs::directory_iterator(directory, failed))
      if (entry.path().filename() != "lost+found") out.push_back(entry.path().string());
    return out;
  }
  void collect() {
    for (const std::string& directory : emptied_)
      for (const std::string& path : content(directory)) made_.push_back(path);
  }

 private:
  std::vector<std::string> made_, emptied_;
  bool kept_ = false;
};

// An existing empty directory, or a new one.
Result<> prepare_directory(const std::string& path, const char* what, Undo& undo) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) {
    if (errno != ENOENT)
      return fail(ErrorKind::kIo, errno, fmt::format("{}: {}", path, std::strerror(errno)));
    VMFS_TRY(make_directory_durably(path, 0700));
    undo.made(path);
    return {};
  }
  if (!S_ISDIR(status.st_mode))
    return fail(ErrorKind::kInvalid, ENOTDIR, fmt::format("{}: is not a directory", path));
  std::vector<std::string> there = Undo::content(path);
  if (!there.empty()) {
    if (stdfs::exists(path + "/vmfs.toml"))
      return fail(ErrorKind::kExists, EEXIST,
                  fmt::format("{} is a store already\nmount it with:  vmfs mount {} MOUNTPOINT", path, path));
    return fail(ErrorKind::kExists, ENOTEMPTY,
                fmt::format("{}: the directory for the {} must be empty or new; it holds {}{}", path,
                            what, stdfs::path(there[0]).filename().string(),
                            there.size() > 1 ? fmt::format(" and {} more", there.size() - 1) : ""));
  }
  undo.made_inside(path);
  return {};
}

}  // namespace

std::string default_node_name() {
  char name[256] = {};
  if (::gethostname(name, sizeof name - 1) != 0) return "";
  std::string host(name, std::strcspn(name, "."));
  return check_name("node", host) ? host : "";
}

std::string guess_address() {
  ifaddrs* list = nullptr;
  if (::getifaddrs(&list) != 0) return "";
  std::unique_ptr<ifaddrs, decltype(&::freeifaddrs)> owner(list, &::freeifaddrs);
  for (int family : {AF_INET, AF_INET6})
    for (ifaddrs* entry = list; entry != nullptr; entry = entry->ifa_next) {
      if (entry->ifa_addr == nullptr || entry->ifa_addr->sa_family != family) continue;
      if ((entry->ifa_flags & IFF_LOOPBACK) != 0 || (entry->ifa_flags & IFF_UP) == 0) continue;
      char host[NI_MAXHOST] = {};
      socklen_t size = family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6);
      if (::getnameinfo(entry->ifa_addr, size, host, sizeof host, nullptr, 0, NI_NUMERICHOST) != 0)
        continue;
      // A link-local address means nothing to another machine.
      if (std::strchr(host, '%') == nullptr) return host;
    }
  return "";
}

VolumeOptions volume_options(const Config& config) {
  VolumeOptions options;
  options.journal.volume = config.volume;
  options.journal.node = config.node;
  options.journal.segment_size = segment_size_for(config.journal_size);
  options.journal.size_max = config.journal_size;
  options.memory_max = config.memory;
  options.peer_journal_max = config.peer_journal_size;
  options.has_peers = !config.peers.empty();
  options.joining = config.joining;
  return options;
}

Result<VolumeOptions> existing_volume_options(const std::string& store, const Config& config,
                                              Disk& journal_disk) {
  VolumeOptions options = volume_options(config);
  VMFS_ASSIGN(auto found, identify_journal(journal_disk));
  if (!found) return options;  // what is the matter with it is the journal's to say
  if (found->volume != config.volume || found->node != config.node)
    return fail(ErrorKind::kInvalid, EINVAL,
                fmt::format("{}: this journal belongs to node {} of volume {}, and {}/vmfs.toml says node {} of volume "
                            "{}\nput back the ids there, or the directory of the journal (node.journal)",
                            journal_disk.display(""), found->node, to_string(found->volume), store, config.node,
                            to_string(config.volume)));
  constexpr std::uint64_t kSegmentsLeast = 4;
  if (config.journal_size < kSegmentsLeast * found->segment_size)
    return fail(ErrorKind::kInvalid, EINVAL,
                fmt::format("{}/vmfs.toml: node.journal-size: {} is too little for the journal in {}: it is made of "
                            "segments of {}, and needs {} of them\nset it to {} or more",
                            store, format_size(config.journal_size), journal_disk.display(""),
                            format_size(found->segment_size), kSegmentsLeast,
                            format_size(kSegmentsLeast * found->segment_size)));
  options.journal.segment_size = found->segment_size;
  return options;
}

Result<> check_start(const std::string& store) {
  VMFS_ASSIGN(Config config, read_config(store));
  VMFS_TRY(read_secret(store));
  VMFS_ASSIGN(auto journal_disk, open_posix_disk(journal_directory(store, config)));
  VMFS_ASSIGN(auto found, identify_journal(*journal_disk));
  if (!found)
    return fail(ErrorKind::kNotFound, ENOENT,
                fmt::format("{}: there is no journal here; node.journal in {}/vmfs.toml says that it is",
                            journal_disk->display(""), store));
  VMFS_TRY(existing_volume_options(store, config, *journal_disk));
  return {};
}

Result<Config> create_store(const NewStore& wish) {
  Config config;
  std::string store = absolute_path(wish.store);
  config.volume = wish.token ? wish.token->volume : new_volume_id();
  config.volume_name = wish.token ? wish.token->volume_name : wish.volume_name;
  if (config.volume_name.empty()) config.volume_name = stdfs::path(store).filename().string();
  config.node_name = wish.node_name.empty() ? default_node_name() : wish.node_name;
  if (config.node_name.empty())
    return fail(ErrorKind::kInvalid, EINVAL,
                "this machine's name cannot be a node's name; give one with --node NAME");
  VMFS_TRY(check_name("volume", config.volume_name));
  VMFS_TRY(check_name("node", config.node_name));
  config.node = new_node_id();
  config.settings.mode = wish.mode;
  // Who joins takes the volume's settings from its first peer: these are later than none.
  if (!wish.token) config.settings.changed_wall_ns = system_clock().wall_ns();
  if (!wish.listen.empty()) VMFS_TRY(parse_address(wish.listen));
  config.listen = wish.listen;
  if (wish.token) {
    config.joining = true;
    config.peers.push_back({.id = {}, .name = "", .address = wish.token->address});
  }

  Undo undo;
  VMFS_TRY(prepare_directory(store, "store", undo));
  if (wish.journal.empty()) {
    VMFS_TRY(make_directory_durably(store + "/journal", 0700));
  } else {
    config.journal = absolute_path(wish.journal);
    VMFS_TRY(prepare_directory(config.journal, "journal", undo));
  }
  auto attempt = [&]() -> Result<> {
    std::string journal_path = journal_directory(store, config);
    VMFS_ASSIGN(auto store_disk, open_posix_disk(store));
    VMFS_ASSIGN(auto journal_disk, open_posix_disk(journal_path));
    VMFS_ASSIGN(DiskSpace store_space, store_disk->space("init.space"));
    VMFS_ASSIGN(DiskSpace journal_space, journal_disk->space("init.space"));
    if (wish.journal_size) {
      config.journal_size = *wish.journal_size;
      if (config.journal_size < kJournalSizeFloor)
        return fail(ErrorKind::kInvalid, EINVAL,
                    fmt::format("a journal of {} is too little; at least {}",
                                format_size(config.journal_size), format_size(kJournalSizeFloor)));
      if (config.journal_size > journal_space.available)
        return fail(ErrorKind::kNoSpace, ENOSPC,
                    fmt::format("a journal of {} does not fit: {} are free at {}",
                                human_size(config.journal_size),
                                human_size(journal_space.available), journal_path));
    } else {
      VMFS_ASSIGN(config.journal_size, default_journal_size(store_space, journal_space));
    }
    VMFS_TRY(Volume::create(*store_disk, *journal_disk, system_clock(), volume_options(config)));
    VMFS_TRY(make_directory_durably(control_directory(store), 0700));
    VMFS_TRY(write_secret(store, wish.token ? wish.token->secret : new_secret()));
    return write_config(store, config);
  };
  if (auto done = attempt(); !done) {
    undo.collect();
    return pass(std::move(done.error()));
  }
  undo.keep();
  return config;
}

}  // namespace vmfs
