// Any text either is refused as a configuration, or means something that, written and read again, means
// the same.
#include <cstdint>
#include <string_view>

#include "cli/config.h"
#include "fs/base/check.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  auto config = vmfs::parse_config(text, "vmfs.toml");
  if (!config) return 0;
  const std::string written = vmfs::format_config(*config);
  auto again = vmfs::parse_config(written, "vmfs.toml");
  CHECK_INVARIANT(again.has_value(), "{}", again ? "" : again.error().message);
  CHECK_INVARIANT(vmfs::format_config(*again) == written, "{}", written);
  return 0;
}
