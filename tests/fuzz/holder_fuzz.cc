// The holder's status file. Any text either is refused, which says of which file, or is a status whose text is one
// of the same status; and a status with any texts in it reads back.
#include <cstdint>
#include <string>
#include <string_view>

#include "fs/base/check.h"
#include "fs/holder/status.h"

namespace {

using namespace vmfs;

void reads_back(const HolderStatus& status) {
  auto again = parse_holder_status(holder_status_text(status), "again");
  CHECK_INVARIANT(again.has_value(), "{}", again.error().message);
  CHECK_INVARIANT(again->state == status.state);
  CHECK_COMPARE(again->holder_pid, ==, status.holder_pid);
  CHECK_COMPARE(again->holder_started, ==, status.holder_started);
  CHECK_COMPARE(again->daemon_pid, ==, status.daemon_pid);
  CHECK_COMPARE(again->starts, ==, status.starts);
  CHECK_COMPARE(again->crashes, ==, status.crashes);
  CHECK_COMPARE(again->since_wall_ns, ==, status.since_wall_ns);
  CHECK_INVARIANT(again->mountpoint == status.mountpoint, "{}", status.mountpoint);
  CHECK_INVARIANT(again->volume_name == status.volume_name, "{}", status.volume_name);
  CHECK_INVARIANT(again->reason == status.reason, "{}", status.reason);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  auto status = parse_holder_status(text, "STORE/run/holder");
  if (status) {
    CHECK_COMPARE(status->holder_pid, >, 0);
    CHECK_COMPARE(status->daemon_pid, >=, 0);
    reads_back(*status);
  } else {
    CHECK_INVARIANT(status.error().message.starts_with("STORE/run/holder"), "{}", status.error().message);
  }
  HolderStatus with_texts;
  with_texts.holder_pid = 1;
  with_texts.mountpoint = text.substr(0, size / 3);
  with_texts.volume_name = text.substr(size / 3, size / 3);
  with_texts.reason = text.substr(size / 3 * 2);
  reads_back(with_texts);
  return 0;
}
