// Values as people and files write them: sizes, times, addresses, settings, ids, secrets, mount options. What is
// accepted is written out as a text that means the same; what is refused leaves no trace and has a message.
#include <cstdint>
#include <string>
#include <string_view>

#include "cli/config.h"
#include "cli/mount_options.h"
#include "fs/base/check.h"
#include "fs/base/sizes.h"
#include "net/link/address.h"

namespace {

using namespace vmfs;

template <class Value, class Parse, class Format>
void reads_back(const Result<Value>& value, Parse parse, Format format) {
  if (!value) {
    CHECK_INVARIANT(!value.error().message.empty());
    return;
  }
  const std::string written{format(*value)};
  auto again = parse(written);
  CHECK_INVARIANT(again && *again == *value, "{}", written);
}

void options(std::string_view text) {
  const auto same = [](const MountOptions& a, const MountOptions& b) {
    return a.read_only == b.read_only && a.no_exec == b.no_exec && a.no_atime == b.no_atime &&
           a.pretend_no_resend == b.pretend_no_resend;
  };
  MountOptions whole, parts;
  const auto accepted = apply_mount_options(whole, text);
  if (!accepted) CHECK_INVARIANT(accepted.error().message.starts_with("unknown mount option \""));
  // A list says what its options say one after the other, up to the first that is unknown.
  bool good = true;
  for (std::string_view rest = text; good && !rest.empty();) {
    const std::string_view option = rest.substr(0, rest.find(','));
    good = apply_mount_options(parts, option).has_value();
    rest.remove_prefix(std::min(option.size() + 1, rest.size()));
  }
  CHECK_COMPARE(good, ==, accepted.has_value());
  CHECK_INVARIANT(same(whole, parts), "{}", text);
}

void setting(std::string_view text) {
  const VolumeSettings before;
  VolumeSettings after;
  if (auto changed = change_setting(after, text); !changed) {
    CHECK_INVARIANT(after == before && !changed.error().message.empty(), "{}", text);
    return;
  }
  VolumeSettings again;
  for (const std::string& assignment : {fmt::format("mode={}", mode_name(after.mode)),
                                        fmt::format("on-peer-loss={}", peer_loss_name(after.on_peer_loss)),
                                        fmt::format("compression={}", compression_name(after.compression))})
    CHECK_INVARIANT(change_setting(again, assignment).has_value(), "{}", assignment);
  CHECK_INVARIANT(again == after, "{}", text);
}

void secret(std::string_view text) {
  auto value = parse_secret(text, "STORE/secret");
  if (!value) {
    CHECK_INVARIANT(value.error().message.starts_with("STORE/secret"), "{}", value.error().message);
    return;
  }
  // Nothing but its digits counts, in whichever case they are written.
  const std::string written = format_secret(*value);
  for (std::size_t i = 0; i < 2 * value->size(); ++i)
    CHECK_INVARIANT(std::tolower(static_cast<unsigned char>(text[i])) == written[i], "{}", text);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data + 1), size - 1);
  switch (data[0] % 10) {
    case 0: reads_back(parse_size(text), parse_size, format_size); break;
    case 1: reads_back(parse_duration(text), parse_duration, format_duration); break;
    case 2: {
      const auto whole = [](std::string_view each) -> Result<std::string> {
        VMFS_ASSIGN(HostPort address, parse_address(each));
        return to_string(address);
      };
      reads_back(whole(text), whole, [](const std::string& each) { return each; });
      break;
    }
    case 3: reads_back(parse_start_alone(text), parse_start_alone, start_alone_name); break;
    case 4: reads_back(parse_volume_id(text), parse_volume_id, [](const VolumeId& id) { return to_string(id); }); break;
    case 5: reads_back(parse_node_id(text), parse_node_id, [](NodeId id) { return fmt::format("{}", id); }); break;
    case 6: reads_back(parse_encryption(text), parse_encryption, encryption_name); break;
    case 7: setting(text); break;
    case 8: secret(text); break;
    default: options(text); break;
  }
  return 0;
}
