#include "cli/mount_options.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>

namespace vmfs {

namespace {

// For mount(8), fstab and systemd, not for us.
constexpr std::array<std::string_view, 14> kForOthers{
    "defaults", "auto", "noauto", "nofail", "fail", "_netdev", "user", "nouser",
    "users", "owner", "group", "async", "silent", "loud"};
// What every vmfs mount does anyway.
constexpr std::array<std::string_view, 5> kAlways{"allow_other", "default_permissions", "nosuid", "nodev",
                                                  "nodiratime"};

template <std::size_t N>
bool among(const std::array<std::string_view, N>& words, std::string_view word) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

}  // namespace

Result<> apply_mount_options(MountOptions& options, std::string_view list) {
  while (!list.empty()) {
    std::size_t comma = std::min(list.find(','), list.size());
    std::string_view option = list.substr(0, comma);
    list.remove_prefix(std::min(comma + 1, list.size()));
    if (option.empty() || among(kForOthers, option) || among(kAlways, option) ||
        option.starts_with("x-") || option.starts_with("X-") || option.starts_with("comment="))
      continue;
    if (option == "ro")
      options.read_only = true;
    else if (option == "rw")
      options.read_only = false;
    else if (option == "noexec")
      options.no_exec = true;
    else if (option == "exec")
      options.no_exec = false;
    else if (option == "noatime")
      options.no_atime = true;
    else if (option == "atime" || option == "relatime" || option == "strictatime")
      options.no_atime = false;
    else if (option == "pretend-no-resend")
      options.pretend_no_resend = true;
    else
      return fail(ErrorKind::kInvalid, EINVAL,
                  fmt::format("unknown mount option \"{}\"; there are: ro, rw, noexec, exec, noatime, "
                              "relatime, and what mount(8) itself knows",
                              option));
  }
  return {};
}

}  // namespace vmfs
