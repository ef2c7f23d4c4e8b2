#include "cli/inspect.h"

#include <fmt/format.h>

#include <array>
#include <cerrno>
#include <filesystem>
#include <map>

#include "cli/config.h"
#include "cli/file.h"
#include "cli/target.h"
#include "fs/base/sizes.h"
#include "fs/holder/holder.h"
#include "fs/journal/segment.h"
#include "fs/seam/disk.h"
#include "fs/store/inspect.h"
#include "net/link/token.h"

namespace vmfs {

namespace {

namespace stdfs = std::filesystem;
using Line = std::function<void(std::string_view)>;

struct Place {
  std::string directory, name;
};

Place split(const std::string& absolute) {
  stdfs::path path(absolute);
  return {path.parent_path().string(), path.filename().string()};
}

void print_lines(const std::string& text, const std::string& indent, const Line& line) {
  for (std::size_t start = 0; start < text.size();) {
    std::size_t end = std::min(text.find('\n', start), text.size());
    line(indent + text.substr(start, end - start));
    start = end + 1;
  }
}

Result<> inspect_state_file(const Place& place, const Line& line) {
  VMFS_ASSIGN(auto disk, open_posix_disk(place.directory));
  VMFS_ASSIGN(Bytes content, read_whole_file(*disk, place.name, "inspect.read"));
  VMFS_ASSIGN(std::string text, inspect_state(content, disk->display(place.name)));
  print_lines(text, "", line);
  return {};
}

Result<> inspect_configuration(const std::string& path, const Line& line) {
  VMFS_ASSIGN(std::string text, read_small_file(path));
  VMFS_ASSIGN(Config config, parse_config(text, path));
  line("configuration, without errors; as it is understood:");
  print_lines(format_config(config), "  ", line);
  return {};
}

Result<> inspect_holder(const std::string& path, const Line& line) {
  VMFS_ASSIGN(HolderStatus holder, read_holder_status(path));
  line(fmt::format("holder of volume {} on {}: {} since {}", holder.volume_name, holder.mountpoint,
                   to_string(holder.state), human_time(holder.since_wall_ns)));
  line(fmt::format("  holder is process {}{}, daemon is process {}", holder.holder_pid,
                   holder_alive(holder) ? "" : " (dead)", holder.daemon_pid));
  line(fmt::format("  {} starts, {} crashes{}{}", holder.starts, holder.crashes,
                   holder.reason.empty() ? "" : "; ", holder.reason));
  return {};
}

bool has_object_id(const Place& place) {
  auto disk = open_posix_disk(place.directory);
  return disk && (*disk)->get_tag(place.name, "id", "inspect.tag");
}

bool kept_snapshot(const Place& place) {
  return (place.directory + "/").find("/images/.snapshots/") != std::string::npos;
}

// In the store's `unlinked`, which is no object: a directory of the volume may be called so too.
bool moved_aside(const Place& place) {
  const Place directory = split(place.directory);
  return directory.name == "unlinked" && place.name.starts_with("foreign-") && !has_object_id(directory);
}

// What is known by its name and place, and has no more to tell. Empty: it is none of these.
std::string plain_words(const Place& place) {
  const std::string parent = stdfs::path(place.directory).filename().string();
  const std::string& name = place.name;
  if (name == kSyncFailedMarker)
    return "a mark: a sync of the journal has failed. The next start writes the unconfirmed end again, before anything "
           "else, and removes this";
  if (name == kPrepareFile || name == kRewriteFile)
    return "a segment that is being made, or that a crash left half made: then the next start removes it";
  if (is_spare_name(name)) return "a spare: a file that will become a segment. Nothing in it counts";
  if (name.ends_with(".new"))
    return "a file that is about to take the place of the one without \".new\"; after a crash it means nothing";
  if (parent == "run") {
    if (name == "lock")
      return fmt::format("the lock of whoever works on this store, a daemon or `vmfs recover`; who has it:  fuser {}/{}",
                         place.directory, name);
    if (name == "mounting") return "the lock of a `vmfs mount` that is at work";
    if (name == "control") return "the socket on which the daemon takes commands";
    if (name == "daemon.log" || name == "daemon.log.old") return "the log of holder and daemon, as text";
  }
  if (place.directory == "/run/vmfs") {
    std::error_code failed;
    return fmt::format("a note that the store {} was mounted here",
                       stdfs::read_symlink(place.directory + "/" + name, failed).string());
  }
  return "";
}

Result<> inspect_kept_names(const Place& place, const Line& line) {
  VMFS_ASSIGN(auto disk, open_posix_disk(place.directory));
  VMFS_ASSIGN(Bytes content, read_whole_file(*disk, place.name, "inspect.read"));
  const std::string text(reinterpret_cast<const char*>(content.data()), content.size());
  line("names that this node had, and gave up to follow another; object id, type, mode, owner and group, time in "
       "seconds since 1970, name:");
  print_lines(text, "  ", line);
  return {};
}

// A file of the store's tree: what it is in the volume.
Result<> inspect_stored(const Place& place, const Line& line) {
  VMFS_ASSIGN(auto disk, open_posix_disk(place.directory));
  VMFS_ASSIGN(FileStat stat, disk->stat(place.name, "inspect.stat"));
  auto tag = disk->get_tag(place.name, "id", "inspect.tag");
  if (!tag && kept_snapshot(place)) {
    line(fmt::format("kept by this node as it was: {} of {}, changed {}",
                     stat.type == FileType::kDirectory ? "a directory" : "a copy", human_size(stat.size),
                     human_time(stat.mtime_ns)));
    return {};
  }
  if (!tag)
    return fail(ErrorKind::kInvalid, EINVAL,
                fmt::format("{}/{}: no file that vmfs writes: it is no segment, state or configuration, "
                            "and bears no object id",
                            place.directory, place.name));
  Reader reader(*tag);
  const auto object = reader.get<std::uint64_t>();
  line(fmt::format("stored object {}: {} of {} ({} allocated), changed {}",
                   reader.at_end() ? fmt::format("{:016x}", object) : "whose id is damaged",
                   stat.type == FileType::kDirectory ? "a directory"
                   : stat.type == FileType::kSymlink ? "a symlink"
                                                     : "an image",
                   human_size(stat.size), human_size(stat.allocated), human_time(stat.mtime_ns)));
  return {};
}

Result<> inspect_segment_file(const Place& place, const InspectOptions& options, const Line& line) {
  VMFS_ASSIGN(auto disk, open_posix_disk(place.directory));
  VMFS_ASSIGN(auto file, disk->open(place.name, OpenMode::kRead, "inspect.open"));
  line(fmt::format("{}:", disk->display(place.name)));
  return inspect_segment(*file, options, [&](std::string_view text) { line(fmt::format("  {}", text)); });
}

// Each entry of a directory, under its name; those for which `wanted` holds.
Result<> inspect_entries(const std::string& path, const InspectOptions& options, const Line& line,
                         const std::function<bool(const stdfs::directory_entry&)>& wanted) {
  std::map<std::string, std::string> entries;
  std::error_code failed;
  for (auto& entry : stdfs::directory_iterator(path, failed))
    if (wanted(entry)) entries.emplace(entry.path().filename().string(), entry.path().string());
  for (auto& [name, entry] : entries) {
    line(name + ":");
    VMFS_TRY(inspect_file(entry, options, [&](std::string_view text) { line(fmt::format("  {}", text)); }));
  }
  return {};
}

// Of a store, or of a directory in one: what is in it.
Result<> inspect_directory(const std::string& path, const InspectOptions& options, const Line& line) {
  if (stdfs::exists(path + "/vmfs.toml")) {
    VMFS_ASSIGN(Config config, read_config(path));
    line(fmt::format("store of volume {} on node {}", config.volume_name, config.node_name));
    VMFS_TRY(inspect_state_file({path, "state"}, line));
    line("journal:");
    return inspect_file(journal_directory(path, config), options, line);
  }
  std::map<std::string, std::string> segments;
  std::error_code failed;
  for (auto& entry : stdfs::directory_iterator(path, failed))
    if (entry.path().extension() == ".seg")
      segments.emplace(entry.path().filename().string(), entry.path().string());
  const std::string name = stdfs::path(path).filename().string();
  if (name == "run") line("what lives as long as a mount does:");
  if (name == "unlinked") line("images that have lost their name while somebody has them open:");
  if (name == "run" || name == "unlinked" || name == "kept-names")
    return inspect_entries(path, options, line, [](auto&) { return true; });
  if (segments.empty()) return inspect_stored(split(path), line);
  for (auto& [number, segment] : segments) VMFS_TRY(inspect_segment_file(split(segment), options, line));
  VMFS_TRY(inspect_entries(path, options, line, [](const stdfs::directory_entry& entry) {
    return entry.is_regular_file() && entry.path().extension() != ".seg";
  }));
  for (auto& entry : stdfs::directory_iterator(path, failed))
    if (entry.is_directory())
      line(fmt::format("{}: what `vmfs recover --until` has cut off; print it with:  vmfs inspect {}",
                       entry.path().filename().string(), entry.path().string()));
  return {};
}

}  // namespace

Result<> inspect_file(const std::string& path, const InspectOptions& options, const Line& line) {
  std::string absolute = absolute_path(path);
  std::error_code failed;
  stdfs::file_status status = stdfs::symlink_status(absolute, failed);
  if (status.type() == stdfs::file_type::not_found)
    return fail(ErrorKind::kNotFound, ENOENT, fmt::format("{}: no such file", path));
  Place place = split(absolute);
  // First, since it may be a copy that was made with the object's id.
  if (moved_aside(place)) {
    line("what somebody else had put where a name of the volume belongs: vmfs moved it here and does not use it");
    return {};
  }
  // What is in the volume may bear any name and hold anything, also what looks like a file of vmfs itself.
  if (kept_snapshot(place) || has_object_id(place)) return inspect_stored(place, line);
  if (status.type() == stdfs::file_type::directory) return inspect_directory(absolute, options, line);
  if (std::string words = plain_words(place); !words.empty()) {
    line(words);
    return {};
  }
  if (status.type() != stdfs::file_type::regular) return inspect_stored(place, line);
  if (stdfs::path(place.directory).filename() == "kept-names") return inspect_kept_names(place, line);
  VMFS_ASSIGN(auto disk, open_posix_disk(place.directory));
  VMFS_ASSIGN(auto file, disk->open(place.name, OpenMode::kRead, "inspect.open"));
  std::array<std::byte, 8> head{};
  VMFS_ASSIGN(std::size_t size, file->read(head, 0, "inspect.read"));
  file.reset();
  std::string_view text(reinterpret_cast<const char*>(head.data()), size);
  // A damaged segment is still known by its name.
  if (looks_like_segment(head) || place.name.ends_with(".seg"))
    return inspect_segment_file(place, options, line);
  if (place.name == "vmfs.toml") return inspect_configuration(absolute, line);
  if (looks_like_state(head) || place.name == "state") return inspect_state_file(place, line);
  if (place.name == "secret") {
    line("the volume's secret; it is not shown. `vmfs token STORE` prints it for another node");
    return {};
  }
  if (place.name == "holder") return inspect_holder(absolute, line);
  if (text.starts_with(kTokenPrefix.substr(0, 5))) {
    VMFS_ASSIGN(std::string content, read_small_file(absolute));
    VMFS_ASSIGN(JoinToken token, decode_token(content));
    line(fmt::format("join token of volume {} ({}), to be found at {}; its secret is not shown",
                     token.volume_name, to_string(token.volume), token.address));
    return {};
  }
  return inspect_stored(place, line);
}

}  // namespace vmfs
