#include "cli/config.h"

#include <sys/stat.h>
#define TOML_EXCEPTIONS 0
#define TOML_ENABLE_FORMATTERS 0
// Its parser assumes of a key's first character what it checks only then: without NDEBUG, and with no assertion, "[:" is
// an error as any other.
#undef NDEBUG
#define TOML_ASSERT(expr) static_cast<void>(0)
#include <toml++/toml.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <functional>
#include <nlohmann/json.hpp>
#include <set>

#include "cli/file.h"
#include "cli/journal_size.h"
#include "fs/base/sizes.h"
#include "net/link/address.h"

namespace vmfs {

namespace {

// One table of the file. Every key that is known is asked for once; what then is left is unknown.
class Section {
 public:
  Section(const toml::table& table, std::string file, std::string name)
      : table_(table), file_(std::move(file)), name_(std::move(name)) {}

  tl::unexpected<Error> bad(const toml::node& node, std::string_view key,
                            std::string_view message) const {
    return bad(node.source().begin.line, key, message);
  }
  tl::unexpected<Error> bad(std::uint32_t line, std::string_view key,
                            std::string_view message) const {
    return fail(ErrorKind::kInvalid, EINVAL,
                fmt::format("{}:{}: {}{}: {}", file_, line, name_.empty() ? "" : name_ + ".", key,
                            message));
  }

  // Hands the string to `take`; a missing key is left at its default, or is an error if required.
  Result<> text(std::string_view key, bool required,
                const std::function<Result<>(const std::string&)>& take) {
    known_.emplace(key);
    const toml::node* node = table_.get(key);
    if (node == nullptr) {
      if (!required) return {};
      return bad(table_.source().begin.line, key, "this key is missing, and it has no default");
    }
    auto value = node->value_exact<std::string>();
    if (!value) return bad(*node, key, "the value must be a string in quotation marks");
    if (auto taken = take(*value); !taken) return bad(*node, key, taken.error().message);
    return {};
  }
  Result<> integer(std::string_view key, std::int64_t least, std::int64_t most,
                   const std::function<void(std::int64_t)>& take) {
    known_.emplace(key);
    const toml::node* node = table_.get(key);
    if (node == nullptr) return {};
    auto value = node->value_exact<std::int64_t>();
    if (!value || *value < least || *value > most)
      return bad(*node, key, fmt::format("the value must be a whole number from {} to {}", least, most));
    take(*value);
    return {};
  }
  Result<> boolean(std::string_view key, bool& target) {
    known_.emplace(key);
    const toml::node* node = table_.get(key);
    if (node == nullptr) return {};
    auto value = node->value_exact<bool>();
    if (!value) return bad(*node, key, "the value must be true or false");
    target = *value;
    return {};
  }
  Result<> texts(std::string_view key, const std::function<Result<>(const std::string&)>& take) {
    known_.emplace(key);
    const toml::node* node = table_.get(key);
    if (node == nullptr) return {};
    const toml::array* list = node->as_array();
    if (list == nullptr) return bad(*node, key, "the value must be a list of strings");
    for (const toml::node& element : *list) {
      auto value = element.value_exact<std::string>();
      if (!value) return bad(element, key, "the value must be a list of strings");
      if (auto taken = take(*value); !taken) return bad(element, key, taken.error().message);
    }
    return {};
  }
  Result<> size(std::string_view key, std::uint64_t least, std::uint64_t& target) {
    return text(key, false, [&](const std::string& value) -> Result<> {
      VMFS_ASSIGN(std::uint64_t bytes, parse_size(value));
      if (bytes < least)
        return fail(ErrorKind::kInvalid, EINVAL,
                    fmt::format("\"{}\" is too little; at least {}", value, format_size(least)));
      target = bytes;
      return {};
    });
  }
  // A table or array of tables below this one; known, but read by somebody else.
  void contains(std::string_view key) { known_.emplace(key); }

  Result<> nothing_else() const {
    for (auto&& [key, node] : table_) {
      if (known_.contains(std::string(key.str()))) continue;
      std::string allowed;
      for (const std::string& name : known_) allowed += (allowed.empty() ? "" : ", ") + name;
      return bad(key.source().begin.line, key.str(),
                 fmt::format("unknown key; allowed {}: {}",
                             name_.empty() ? "at the top" : "in [" + name_ + "]", allowed));
    }
    return {};
  }

 private:
  const toml::table& table_;
  std::string file_;
  std::string name_;
  std::set<std::string> known_;
};

template <class Value>
std::function<Result<>(const std::string&)> into(Value& target, Result<Value> (*parse)(std::string_view)) {
  return [&target, parse](const std::string& text) -> Result<> {
    VMFS_ASSIGN(target, parse(text));
    return {};
  };
}

std::function<Result<>(const std::string&)> name_into(std::string& target, std::string_view what) {
  return [&target, what](const std::string& text) -> Result<> {
    VMFS_TRY(check_name(what, text));
    target = text;
    return {};
  };
}

std::function<Result<>(const std::string&)> address_into(std::string& target) {
  return [&target](const std::string& text) -> Result<> {
    if (!text.empty()) VMFS_TRY(parse_address(text));
    target = text;
    return {};
  };
}

Result<> read_volume(const toml::table& table, const std::string& file, Config& config) {
  Section volume(table, file, "volume");
  VMFS_TRY(volume.text("name", true, name_into(config.volume_name, "volume")));
  VMFS_TRY(volume.text("id", true, into(config.volume, parse_volume_id)));
  VMFS_TRY(volume.text("mode", true, into(config.settings.mode, parse_mode)));
  VMFS_TRY(volume.text("on-peer-loss", false, into(config.settings.on_peer_loss, parse_peer_loss)));
  VMFS_TRY(volume.text("compression", false, into(config.settings.compression, parse_compression)));
  VMFS_TRY(volume.integer("settings-changed", 0, INT64_MAX, [&](std::int64_t value) {
    config.settings.changed_wall_ns = value;
  }));
  return volume.nothing_else();
}

Result<> read_node(const toml::table& table, const std::string& file, Config& config) {
  Section node(table, file, "node");
  VMFS_TRY(node.text("name", true, name_into(config.node_name, "node")));
  VMFS_TRY(node.text("id", true, into(config.node, parse_node_id)));
  VMFS_TRY(node.text("listen", false, address_into(config.listen)));
  VMFS_TRY(node.text("tls", false, into(config.encryption, parse_encryption)));
  VMFS_TRY(node.text("journal", false, [&](const std::string& text) -> Result<> {
    if (text.empty()) return fail(ErrorKind::kInvalid, EINVAL, "the value must name a directory");
    config.journal = text;
    return {};
  }));
  config.journal_size = kJournalSizeDefaultLeast;
  VMFS_TRY(node.size("journal-size", kJournalSizeFloor, config.journal_size));
  VMFS_TRY(node.size("peer-journal-size", kJournalSizeFloor / 2, config.peer_journal_size));
  if (config.peer_journal_size > config.journal_size)
    return node.bad(*table.get("peer-journal-size"), "peer-journal-size",
                    fmt::format("cannot be more than journal-size, which is {}",
                                format_size(config.journal_size)));
  VMFS_TRY(node.size("memory", 16u << 20, config.memory));
  VMFS_TRY(node.integer("threads", 0, 64,
                        [&](std::int64_t value) { config.threads = static_cast<unsigned>(value); }));
  VMFS_TRY(node.text("start-alone", false, into(config.start_alone_after_ns, parse_start_alone)));
  VMFS_TRY(node.boolean("joining", config.joining));
  VMFS_TRY(node.texts("removed-peers", [&](const std::string& text) -> Result<> {
    VMFS_ASSIGN(NodeId id, parse_node_id(text));
    config.removed.push_back(id);
    return {};
  }));
  return node.nothing_else();
}

Result<> read_peer(const toml::table& table, const std::string& file, Config& config) {
  Section section(table, file, "peer");
  PeerInfo peer;
  VMFS_TRY(section.text("name", false, [&](const std::string& text) -> Result<> {
    if (!text.empty()) VMFS_TRY(check_name("node", text));
    peer.name = text;
    return {};
  }));
  VMFS_TRY(section.text("id", false, into(peer.id, parse_node_id)));
  VMFS_TRY(section.text("address", false, address_into(peer.address)));
  VMFS_TRY(section.nothing_else());
  if (peer.id == NodeId{} && peer.address.empty())
    return section.bad(table.source().begin.line, "address",
                       "a peer needs an id or an address, else nobody can tell which node is meant");
  // Two nodes may have one name: a machine that was made anew joins before the old one is removed.
  for (const PeerInfo& other : config.peers)
    if (peer.id != NodeId{} ? other.id == peer.id
                            : other.id == NodeId{} && !peer.name.empty() && other.name == peer.name)
      return section.bad(table.source().begin.line, "name",
                         fmt::format("the peer \"{}\" is already listed above", other.name));
  if (peer.id == config.node)
    return section.bad(table.source().begin.line, "id", "this is the id of this node itself");
  config.peers.push_back(std::move(peer));
  return {};
}

// toml++ 3.3 looks at what bytes mean before it has seen that they mean nothing, and takes text beyond ASCII that is in
// no string for one of the blanks it knows. So it gets the text without that first.
Result<toml::table> parse_toml(std::string_view text, const std::string& file) {
  const auto bad = [&](std::size_t line, std::string_view why) {
    return fail(ErrorKind::kInvalid, EINVAL, fmt::format("{}:{}: not TOML: {}", file, line, why));
  };
  if (constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf"; text.starts_with(kByteOrderMark))
    text.remove_prefix(kByteOrderMark.size());
  std::string ascii(text);
  std::set<std::size_t> replaced;  // lines
  std::size_t line = 1;
  for (std::size_t at = 0; at < text.size(); ++line) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    try {
      (void)nlohmann::json(text.substr(at, end - at)).dump();
    } catch (const nlohmann::json::type_error&) {
      return bad(line, "this line is not UTF-8");
    }
    for (; at < end; ++at)
      if (static_cast<unsigned char>(text[at]) >= 0x80) {
        ascii[at] = '?';
        replaced.insert(line);
      }
    ++at;
  }
  toml::parse_result parsed = toml::parse(ascii, file);
  if (!parsed) {
    line = parsed.error().source().begin.line;
    return bad(line, fmt::format("{}{}", parsed.error().description(),
                                 replaced.contains(line) ? " ('?' is text beyond ASCII, which may be in quotes only)" : ""));
  }
  // There it looks for those blanks too.
  for (const char* quotes : {"\"\"\"", "'''"})
    if (const std::size_t found = ascii.find(quotes); !replaced.empty() && found != ascii.npos)
      return bad(static_cast<std::size_t>(std::count(ascii.begin(), ascii.begin() + static_cast<std::ptrdiff_t>(found), '\n')) + 1,
                 fmt::format("{} begins a string of several lines; no key has one, and with text beyond ASCII in the file it "
                             "is not read", quotes));
  if (!replaced.empty()) parsed = toml::parse(text, file);
  if (!parsed) return bad(parsed.error().source().begin.line, parsed.error().description());
  return std::move(parsed).table();
}

}  // namespace

Result<Config> parse_config(std::string_view text, const std::string& file) {
  VMFS_ASSIGN(const toml::table table, parse_toml(text, file));
  Section top(table, file, "");
  Config config;
  std::int64_t format = 0;
  VMFS_TRY(top.integer("format", 1, INT64_MAX, [&](std::int64_t value) { format = value; }));
  if (format == 0)
    return fail(ErrorKind::kInvalid, EINVAL,
                fmt::format("{}:1: format: this key is missing; this version writes format = {}", file,
                            kConfigFormat));
  if (format > kConfigFormat)
    return fail(ErrorKind::kInvalid, EPROTO,
                fmt::format("{}: format {} was written by a newer version of vmfs; this one ({}) knows "
                            "up to {}\nuse that newer version for this store",
                            file, format, VMFS_VERSION, kConfigFormat));
  for (const char* name : {"volume", "node"}) {
    top.contains(name);
    const toml::node* node = table.get(name);
    if (node == nullptr)
      return fail(ErrorKind::kInvalid, EINVAL, fmt::format("{}: the table [{}] is missing", file, name));
    if (!node->is_table()) return top.bad(*node, name, fmt::format("must be a table: [{}]", name));
  }
  top.contains("peer");
  VMFS_TRY(top.nothing_else());
  VMFS_TRY(read_volume(*table["volume"].as_table(), file, config));
  VMFS_TRY(read_node(*table["node"].as_table(), file, config));
  if (const toml::node* peers = table.get("peer")) {
    const toml::array* list = peers->as_array();
    if (list == nullptr || !list->is_homogeneous<toml::table>())
      return top.bad(*peers, "peer", "each peer is a table of a list: [[peer]]");
    for (const toml::node& peer : *list) VMFS_TRY(read_peer(*peer.as_table(), file, config));
  }
  return config;
}

namespace {

// A TOML basic string.
std::string toml_text(std::string_view text) {
  std::string out = "\"";
  for (char c : text) {
    if (c == '"' || c == '\\')
      out += fmt::format("\\{}", c);
    else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f)
      out += fmt::format("\\u{:04x}", static_cast<unsigned>(static_cast<unsigned char>(c)));
    else
      out += c;
  }
  return out + "\"";
}

}  // namespace

std::string format_config(const Config& config) {
  std::string out = fmt::format(
      "# A node of a vmfs volume; every key is explained in vmfs.toml(5).\n"
      "# The daemon writes this file anew when settings or peers change; comments are then lost.\n"
      "format = {}\n"
      "\n"
      "# The volume: the same on every node. Change it with `vmfs set MOUNTPOINT KEY=VALUE`.\n"
      "[volume]\n"
      "name = {}\n"
      "id = \"{}\"\n"
      "mode = \"{}\"\n"
      "on-peer-loss = \"{}\"\n"
      "compression = \"{}\"\n"
      "settings-changed = {}\n"
      "\n"
      "# This node alone. Edit it here; it takes effect with `vmfs restart MOUNTPOINT`.\n"
      "[node]\n"
      "name = {}\n"
      "id = \"{}\"\n",
      kConfigFormat, toml_text(config.volume_name), to_string(config.volume),
      mode_name(config.settings.mode), peer_loss_name(config.settings.on_peer_loss),
      compression_name(config.settings.compression), config.settings.changed_wall_ns,
      toml_text(config.node_name), config.node);
  out += fmt::format(
      "listen = {}\ntls = \"{}\"\njournal = {}\njournal-size = \"{}\"\n", toml_text(config.listen),
      encryption_name(config.encryption), toml_text(config.journal), format_size(config.journal_size));
  if (config.peer_journal_size != 0)
    out += fmt::format("peer-journal-size = \"{}\"\n", format_size(config.peer_journal_size));
  out += fmt::format("memory = \"{}\"\nthreads = {}\n", format_size(config.memory), config.threads);
  out += fmt::format("start-alone = \"{}\"\n", start_alone_name(config.start_alone_after_ns));
  if (config.joining) out += "joining = true\n";
  if (!config.removed.empty()) {
    std::string list;
    for (NodeId id : config.removed) list += fmt::format("{}\"{}\"", list.empty() ? "" : ", ", id);
    out += fmt::format("removed-peers = [{}]\n", list);
  }
  for (const PeerInfo& peer : config.peers) {
    out += fmt::format("\n[[peer]]\nname = {}\n", toml_text(peer.name));
    if (peer.id != NodeId{}) out += fmt::format("id = \"{}\"\n", peer.id);
    out += fmt::format("address = {}\n", toml_text(peer.address));
  }
  return out;
}

Result<Config> read_config(const std::string& store) {
  std::string file = store + "/vmfs.toml";
  auto text = read_small_file(file);
  if (!text) {
    if (text.error().number == ENOENT || text.error().number == ENOTDIR)
      return fail(ErrorKind::kNotFound, ENOENT,
                  fmt::format("{} is not a store: it has no vmfs.toml\n"
                              "make a new volume with:   vmfs init {}\n"
                              "or join an existing one:  vmfs join {} TOKEN",
                              store, store, store));
    return pass(std::move(text.error()));
  }
  return parse_config(*text, file);
}

Result<> write_config(const std::string& store, const Config& config) {
  return replace_small_file(store + "/vmfs.toml", format_config(config), 0644);
}

Result<Secret> read_secret(const std::string& store) {
  std::string file = store + "/secret";
  struct stat status {};
  if (::stat(file.c_str(), &status) == 0 && (status.st_mode & 077) != 0)
    return fail(ErrorKind::kInvalid, EPERM,
                fmt::format("{}: mode {:04o} lets others read the volume's secret\n"
                            "close it with:  chmod 600 {}",
                            file, status.st_mode & 07777, file));
  VMFS_ASSIGN(std::string text, read_small_file(file));
  return parse_secret(text, file);
}

Result<> write_secret(const std::string& store, const Secret& secret) {
  return replace_small_file(store + "/secret", format_secret(secret), 0600);
}

std::string journal_directory(const std::string& store, const Config& config) {
  return config.journal.starts_with('/') ? config.journal : store + "/" + config.journal;
}

}  // namespace vmfs
