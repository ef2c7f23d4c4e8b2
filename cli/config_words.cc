// The words that vmfs.toml and `vmfs set` use for values.
#include <algorithm>
#include <array>
#include <cerrno>
#include <span>

#include "cli/config.h"
#include "fs/base/digits.h"

namespace vmfs {

namespace {

tl::unexpected<Error> bad_value(std::string_view text, std::string_view allowed) {
  return fail(ErrorKind::kInvalid, EINVAL,
              fmt::format("\"{}\" is not a value here; allowed: {}", text, allowed));
}

template <class Value, std::size_t N>
using Words = std::array<std::pair<std::string_view, Value>, N>;

constexpr Words<ReplicationMode, 3> kModes{{{"async", ReplicationMode::kAsync},
                                            {"semisync", ReplicationMode::kSemisync},
                                            {"sync", ReplicationMode::kSync}}};
constexpr Words<OnPeerLoss, 2> kPeerLoss{
    {{"continue", OnPeerLoss::kContinue}, {"freeze", OnPeerLoss::kFreeze}}};
constexpr Words<Encryption, 3> kEncryption{{{"on", Encryption::kTls},
                                            {"off", Encryption::kOffOnLoopback},
                                            {"off-forced", Encryption::kOffEverywhere}}};

template <class Value, std::size_t N>
std::string_view name_of(const Words<Value, N>& words, Value value) {
  auto found = std::find_if(words.begin(), words.end(), [&](auto& w) { return w.second == value; });
  return found == words.end() ? "unknown" : found->first;
}

template <class Value, std::size_t N>
Result<Value> value_of(const Words<Value, N>& words, std::string_view text) {
  for (auto& [word, value] : words)
    if (word == text) return value;
  std::string allowed;
  for (auto& [word, value] : words) allowed += fmt::format("{}{}", allowed.empty() ? "" : ", ", word);
  return bad_value(text, allowed);
}

constexpr int kZstdLevelLeast = -7;
constexpr int kZstdLevelMost = 19;

bool parse_hex_bytes(std::string_view text, std::span<std::byte> out) {
  bool good = text.size() == 2 * out.size();
  for (std::size_t i = 0; good && i < out.size(); ++i) {
    std::uint8_t value = 0;
    good = parse_digits(text.substr(2 * i, 2), value, 16);
    out[i] = std::byte{value};
  }
  return good;
}

}  // namespace

std::string_view mode_name(ReplicationMode mode) { return name_of(kModes, mode); }
std::string_view peer_loss_name(OnPeerLoss policy) { return name_of(kPeerLoss, policy); }
std::string_view encryption_name(Encryption encryption) { return name_of(kEncryption, encryption); }
Result<ReplicationMode> parse_mode(std::string_view text) { return value_of(kModes, text); }
Result<OnPeerLoss> parse_peer_loss(std::string_view text) { return value_of(kPeerLoss, text); }
Result<Encryption> parse_encryption(std::string_view text) { return value_of(kEncryption, text); }

std::string compression_name(const std::optional<std::int32_t>& level) {
  if (!level) return "auto";
  return *level == 0 ? "off" : fmt::format("zstd:{}", *level);
}

Result<std::optional<std::int32_t>> parse_compression(std::string_view text) {
  if (text == "auto") return std::optional<std::int32_t>();
  if (text == "off") return std::optional<std::int32_t>(0);
  constexpr std::string_view kPrefix = "zstd:";
  if (text.starts_with(kPrefix)) {
    std::int32_t level = 0;
    if (parse_digits(text.substr(kPrefix.size()), level) && level >= kZstdLevelLeast && level <= kZstdLevelMost &&
        level != 0)
      return std::optional<std::int32_t>(level);
  }
  return bad_value(text, fmt::format("auto, off, zstd:N with N from {} to {} but not 0",
                                     kZstdLevelLeast, kZstdLevelMost));
}

std::string start_alone_name(std::int64_t after_ns) {
  return after_ns == 0 ? "never" : fmt::format("after:{}", after_ns / 1'000'000'000);
}

Result<std::int64_t> parse_start_alone(std::string_view text) {
  if (text == "never") return 0;
  constexpr std::string_view kPrefix = "after:";
  constexpr std::int64_t kSecondsMost = 86400;
  if (text.starts_with(kPrefix)) {
    std::int64_t seconds = 0;
    if (parse_digits(text.substr(kPrefix.size()), seconds) && seconds > 0 && seconds <= kSecondsMost)
      return seconds * 1'000'000'000;
  }
  return bad_value(text, fmt::format("never, after:SECONDS with SECONDS from 1 to {}", kSecondsMost));
}

Result<> change_setting(VolumeSettings& settings, std::string_view assignment) {
  std::size_t equals = assignment.find('=');
  std::string_view key = assignment.substr(0, equals);
  if (equals == std::string_view::npos)
    return fail(ErrorKind::kInvalid, EINVAL,
                fmt::format("\"{}\" is not KEY=VALUE, as mode=sync", assignment));
  std::string_view value = assignment.substr(equals + 1);
  auto take = [&](auto parsed, auto& target) -> Result<> {
    if (!parsed)
      return fail(ErrorKind::kInvalid, EINVAL, fmt::format("{}: {}", key, parsed.error().message));
    target = *parsed;
    return {};
  };
  if (key == "mode") return take(parse_mode(value), settings.mode);
  if (key == "on-peer-loss") return take(parse_peer_loss(value), settings.on_peer_loss);
  if (key == "compression") return take(parse_compression(value), settings.compression);
  return fail(ErrorKind::kInvalid, EINVAL,
              fmt::format("\"{}\" is not a setting of the volume; there are: mode, on-peer-loss, "
                          "compression\n"
                          "settings of this node alone are in STORE/vmfs.toml: see vmfs.toml(5)",
                          key));
}

Result<VolumeId> parse_volume_id(std::string_view text) {
  VolumeId id{};
  if (!parse_hex_bytes(text, id)) return bad_value(text, "32 hexadecimal digits, as `vmfs init` wrote them");
  return id;
}

Result<NodeId> parse_node_id(std::string_view text) {
  std::uint64_t value = 0;
  if (text.size() != 16 || !parse_digits(text, value, 16) || value == 0)
    return bad_value(text, "16 hexadecimal digits, as `vmfs init` or `vmfs join` wrote them");
  return NodeId{value};
}

std::string format_secret(const Secret& secret) {
  std::string text;
  for (std::byte b : secret) text += fmt::format("{:02x}", static_cast<unsigned>(b));
  return text + "\n";
}

Result<Secret> parse_secret(std::string_view text, const std::string& file) {
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.remove_suffix(1);
  Secret secret;
  if (!parse_hex_bytes(text, secret))
    return fail(ErrorKind::kCorrupt, EINVAL,
                fmt::format("{}: not a secret: it must hold {} hexadecimal digits, the same on all nodes\n"
                            "copy it from another node's store, or join again with a token that `vmfs token` prints there",
                            file, 2 * secret.size()));
  return secret;
}

Result<> check_name(std::string_view what, std::string_view name) {
  constexpr std::size_t kNameLongest = 63;
  auto good = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '-' || c == '_';
  };
  if (!name.empty() && name.size() <= kNameLongest && std::all_of(name.begin(), name.end(), good) &&
      name[0] != '.' && name[0] != '-')
    return {};
  return fail(ErrorKind::kInvalid, EINVAL,
              fmt::format("\"{}\" cannot be the name of a {}; allowed: 1 to {} letters, digits, '.', "
                          "'-' and '_', not beginning with '.' or '-'",
                          name, what, kNameLongest));
}

}  // namespace vmfs
