#include "cli/status_text.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <ctime>
#include <vector>

#include "fs/base/sizes.h"

namespace vmfs {

namespace {

using nlohmann::json;

enum class Colour { kGood, kBad, kWarn, kBold, kDim };

std::string paint(const StatusTextOptions& options, Colour colour, const std::string& text) {
  if (!options.colour) return text;
  static constexpr const char* kCodes[] = {"32", "1;31", "33", "1", "2"};
  return fmt::format("\033[{}m{}\033[0m", kCodes[static_cast<int>(colour)], text);
}

// Keys may be missing or null when no daemon answers, or when it is of another version.
std::string text_of(const json& object, const char* key) {
  auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}
double number_of(const json& object, const char* key) {
  auto found = object.find(key);
  return found != object.end() && found->is_number() ? found->get<double>() : 0;
}
std::uint64_t bytes_of(const json& object, const char* key) {
  return static_cast<std::uint64_t>(std::max(number_of(object, key), 0.0));
}
const json& part_of(const json& object, const char* key) {
  static const json nothing = json::object();
  auto found = object.find(key);
  return found != object.end() && (found->is_object() || found->is_array()) ? *found : nothing;
}

// Whole seconds: nobody reads more.
std::string duration_text(double seconds) {
  return human_duration(std::max<std::int64_t>(static_cast<std::int64_t>(seconds), 0) * 1'000'000'000);
}

std::string clock_time(double wall, double now) {
  std::time_t at = static_cast<std::time_t>(wall);
  // A moment of another day needs its date.
  const char* format = now - wall < 86400 / 2 ? "{:%H:%M:%S}" : "{:%Y-%m-%d %H:%M}";
  return fmt::format(fmt::runtime(format), fmt::localtime(at));
}

std::string since(double wall, double now) {
  if (wall <= 0) return "";
  return fmt::format("since {} ({})", clock_time(wall, now),
                     duration_text(now - wall));
}

std::string lag_text(const json& peer) {
  auto records = peer.find("lag_records");
  std::string text = records != peer.end() && records->is_number()
                         ? fmt::format("behind by {:.0f} records, {}", records->get<double>(),
                                       human_size(bytes_of(peer, "lag_bytes")))
                         : fmt::format("behind by at most {}", human_size(bytes_of(peer, "lag_bytes")));
  if (double lag = number_of(peer, "lag_seconds"); lag > 0) text += fmt::format(", {:.1f} s", lag);
  return text;
}

std::string indented(const std::string& text, const std::string& indent) {
  std::string out;
  for (char c : text) {
    out += c;
    if (c == '\n') out += indent;
  }
  return out;
}

std::string peer_line(const json& peer, double now, std::size_t width,
                      const StatusTextOptions& options) {
  std::string link = text_of(peer, "link");
  std::string line = fmt::format("  peer {:<{}}  ", text_of(peer, "node"), width);
  if (link == "connected") {
    std::string state = text_of(peer, "state");
    line += state == "in-sync" ? paint(options, Colour::kGood, "in sync")
                               : paint(options, Colour::kWarn, state);
    if (state == "full-copy") {
      line += peer.value("copies_here", false)
                  ? std::string(" to this node")
                  : fmt::format(" to it: {} of {}", human_size(bytes_of(peer, "copy_bytes_done")),
                                human_size(bytes_of(peer, "copy_bytes_total")));
    } else if (bytes_of(peer, "lag_bytes") > 0) {
      line += ", " + lag_text(peer);
    }
    double durable = number_of(peer, "durable_lsn"), applied = number_of(peer, "applied_lsn");
    if (durable > applied)
      line += fmt::format("; {} not yet in its store", human_size(static_cast<std::uint64_t>(durable - applied)));
    line += fmt::format("; connected to {} {}", text_of(peer, "remote"),
                        since(number_of(peer, "link_since"), now));
    double sending = number_of(peer, "send_bytes_per_second");
    double receiving = number_of(peer, "receive_bytes_per_second");
    if (sending + receiving >= 1)
      line += fmt::format("; {}/s out, {}/s in", human_size(static_cast<std::uint64_t>(sending)),
                          human_size(static_cast<std::uint64_t>(receiving)));
  } else {
    line += paint(options, Colour::kBad, link);
    if (std::string reason = text_of(peer, "link_reason"); !reason.empty())
      line += ": " + indented(reason, "       ");
    double contact = number_of(peer, "last_contact");
    line += contact > 0 ? fmt::format("; last heard {} ago",
                                      duration_text(now - contact))
                        : std::string(link == "unmounted" ? "" : "; never heard");
    if (contact > 0) line += peer.value("was_in_sync", false) ? ", in sync then" : ", not in sync then";
    if (bytes_of(peer, "lag_bytes") > 0) line += ", " + lag_text(peer);
  }
  return line + "\n";
}

std::string image_peers(const json& image) {
  std::string out;
  for (const json& peer : part_of(image, "peers")) {
    if (!out.empty()) out += "; ";
    out += fmt::format("{}: {}", text_of(peer, "node"), text_of(peer, "state"));
    if (peer.value("copy_due", false))
      out += ", has no state of it";
    else if (number_of(peer, "lag_bytes") > 0)
      out += ", " + lag_text(peer);
    if (std::string rule = text_of(peer, "rule"); text_of(peer, "state") == "split" && !rule.empty())
      out += fmt::format(" (rule: {})", rule);
  }
  return out;
}

bool as_it_should_be(const json& image) {
  std::string state = text_of(image, "state"), role = text_of(image, "role");
  return (state == "in-sync" || state == "alone") && (role == "primary" || role == "secondary");
}

std::string images_table(const json& status, const StatusTextOptions& options) {
  const json& images = part_of(status, "images");
  if (images.empty()) return "";
  bool all = images.size() <= options.images_max;
  std::vector<const json*> rows;
  for (const json& image : images)
    if (all || !as_it_should_be(image)) rows.push_back(&image);
  std::string out = "\n";
  if (!all)
    out += fmt::format("  {} images; {} of them not in sync or not settled{}\n", images.size(), rows.size(),
                       rows.empty() ? "" : ":");
  std::size_t width = 5;
  for (const json* row : rows) width = std::max(width, std::min<std::size_t>(text_of(*row, "path").size(), 60));
  if (!rows.empty())
    out += paint(options, Colour::kDim, fmt::format("  {:<{}}  {:<12} {:>12}  {}\n", "IMAGE", width, "ROLE", "SEQ", "PEERS"));
  for (const json* row : rows) {
    std::string role = text_of(*row, "role");
    std::string who = role == "secondary" && !text_of(*row, "owner").empty()
                          ? fmt::format(" (owner: {})", text_of(*row, "owner"))
                          : "";
    std::string line = fmt::format("  {:<{}}  {:<12} {:>12.0f}  {}{}", text_of(*row, "path"), width,
                                   role, number_of(*row, "seq"), image_peers(*row), who);
    while (line.ends_with(' ')) line.pop_back();
    out += as_it_should_be(*row) ? line : paint(options, Colour::kWarn, line);
    out += "\n";
  }
  return out;
}

std::string loss_line(const json& status) {
  const json& loss = part_of(status, "loss_if_this_node_dies");
  std::string head = fmt::format("  if {} dies now:  ", text_of(status, "node"));
  if (part_of(status, "peers").empty())
    return head + "everything is lost that is on this node alone: the volume has no peer\n";
  std::string size = human_size(bytes_of(loss, "bytes"));
  auto records = loss.find("records");
  if (records == loss.end() || !records->is_number())
    return head + fmt::format("at most {} is lost, the last {:.1f} s (no peer was met since the daemon's start)\n",
                              size, number_of(loss, "seconds"));
  if (double images = number_of(loss, "images"); images > 0)
    return head + fmt::format("{:.0f} image{} lost, of which no peer has a whole state yet\n", images,
                              images == 1 ? " is" : "s are");
  if (*records == 0) return head + "nothing is lost\n";
  return head + fmt::format("the last {:.0f} records are lost ({}, {:.1f} s)\n", records->get<double>(), size,
                            number_of(loss, "seconds"));
}

}  // namespace

std::string status_text(const json& status, const StatusTextOptions& options) {
  double now = number_of(status, "time");
  bool healthy = status.value("healthy", false);
  const json& problems = part_of(status, "problems");
  std::string mountpoint = text_of(status, "mountpoint");
  std::string out = fmt::format(
      "{}{}, {}: {}\n", paint(options, Colour::kBold, text_of(status, "volume")),
      // Not known when vmfs.toml cannot be read.
      text_of(status, "node").empty() ? "" : " on " + text_of(status, "node"), mountpoint.empty() ? "not mounted" : mountpoint,
      healthy ? paint(options, Colour::kGood, "healthy")
              : paint(options, Colour::kBad,
                      fmt::format("{} problem{}", problems.size(), problems.size() == 1 ? "" : "s")));
  std::size_t count = 0;
  for (const json& problem : problems)
    out += fmt::format("  {}. {}\n", ++count,
                       indented(problem.is_string() ? problem.get<std::string>() : problem.dump(), "     "));
  if (!part_of(status, "daemon").value("pid", json()).is_number()) return out + fmt::format("  store {}\n", text_of(status, "store"));
  if (!problems.empty()) out += "\n";

  const json& peers = part_of(status, "peers");
  std::size_t width = 0;
  for (const json& peer : peers) width = std::max(width, text_of(peer, "node").size());
  for (const json& peer : peers) out += peer_line(peer, now, width, options);
  if (!peers.empty())
    out += fmt::format("  mode {}, when a peer is lost: {}, compression {}\n", text_of(status, "mode"),
                       text_of(status, "on_peer_loss"), text_of(status, "compression"));
  // Also to loopback: what is configured so today is moved to a cable tomorrow.
  if (std::string tls = text_of(status, "tls"); tls == "off" || tls == "off-forced")
    out += "  " + paint(options, Colour::kBad,
                        fmt::format("tls = \"{}\": what guests write goes {} in clear", tls,
                                    tls == "off" ? "over loopback" : "over the network")) + "\n";
  out += loss_line(status);

  const json& journal = part_of(status, "journal");
  const json& space = part_of(status, "store_space");
  out += fmt::format("  journal {} of {}, {} not yet in the store; store has {} free of {}\n",
                     human_size(bytes_of(journal, "bytes_used")),
                     human_size(bytes_of(journal, "bytes_max")),
                     human_size(bytes_of(journal, "unapplied_bytes")),
                     human_size(bytes_of(space, "bytes_available")),
                     human_size(bytes_of(space, "bytes_total")));
  const json& daemon = part_of(status, "daemon");
  out += fmt::format("  daemon {:.0f}, {}", number_of(daemon, "pid"), since(number_of(daemon, "started"), now));
  if (number_of(daemon, "starts") > 1)
    out += fmt::format(", start number {:.0f} on this mount", number_of(daemon, "starts"));
  if (number_of(daemon, "parked_requests") > 0)
    out += fmt::format(", {:.0f} requests wait", number_of(daemon, "parked_requests"));
  out += "\n";
  return out + images_table(status, options);
}

}  // namespace vmfs
