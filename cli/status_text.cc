#include "cli/status_text.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <ctime>
#include <vector>

#include "cli/control_line.h"
#include "cli/json_fields.h"
#include "fs/base/printable.h"
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

json with_printable_texts(const json& value, const std::string& key = "") {
  const bool has_lines = key == "problems" || key == "link_reason";
  if (value.is_string()) {
    const auto text = value.get<std::string>();
    return has_lines ? printable(text) : printable_name(text);
  }
  json out = value;
  if (value.is_array())
    for (json& element : out) element = with_printable_texts(element, key);
  if (value.is_object())
    for (auto& [name, element] : out.items()) element = with_printable_texts(element, name);
  return out;
}

std::uint64_t bytes_of(const json& object, const char* key) {
  return static_cast<std::uint64_t>(std::max(number_of(object, key), 0.0));
}

// Whole seconds: nobody reads more.
std::string duration_text(double seconds) {
  constexpr double kMost = 9e9;  // in nanoseconds still an integer
  return human_duration(static_cast<std::int64_t>(std::clamp(seconds, 0.0, kMost)) * 1'000'000'000);
}

std::string clock_time(double wall, double now) {
  constexpr double kMost = 253402300799;  // the end of the year 9999
  const auto at = static_cast<std::time_t>(std::clamp(wall, 0.0, kMost));
  // A moment of another day needs its date.
  const char* format = now - wall < 86400 / 2 ? "{:%H:%M:%S}" : "{:%Y-%m-%d %H:%M}";
  return fmt::format(fmt::runtime(format), fmt::localtime(at));
}

std::string since(double wall, double now) {
  if (wall <= 0) return "";
  return fmt::format("since {} ({})", clock_time(wall, now),
                     duration_text(now - wall));
}

// So many records, bytes and seconds; under `prefix`records, ... ; "" if it is nothing.
std::string amount_text(const json& object, const std::string& prefix = "") {
  auto records = object.find(prefix + "records");
  const std::uint64_t bytes = bytes_of(object, (prefix + "bytes").c_str());
  const double age = number_of(object, (prefix + "seconds").c_str());
  std::string text;
  if (records == object.end() || !records->is_number())
    text = bytes > 0 ? fmt::format("at most {}", human_size(bytes)) : "";
  else if (*records != 0)
    text = fmt::format("{:.0f} record{}, {}", records->get<double>(), *records == 1 ? "" : "s", human_size(bytes));
  if (!text.empty() && age >= 0.05) text += fmt::format(", {:.1f} s", age);
  return text;
}

std::string behind_text(const json& peer) {
  std::string amount = amount_text(peer, "lag_");
  return amount.empty() ? "" : ", behind by " + amount;
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
      line += flag_of(peer, "copies_here")
                  ? std::string(" to this node")
                  : fmt::format(" to it: {} of {}", human_size(bytes_of(peer, "copy_bytes_done")),
                                human_size(bytes_of(peer, "copy_bytes_total")));
    } else {
      line += behind_text(peer);
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
    if (contact > 0) line += flag_of(peer, "was_in_sync") ? ", in sync then" : ", not in sync then";
    line += behind_text(peer);
  }
  return line + "\n";
}

// What each peer lacks; of one peer without its name.
std::string image_lag(const json& image) {
  const json& peers = part_of(image, "peers");
  std::string out;
  for (const json& peer : peers) {
    std::string lag = flag_of(peer, "copy_due") ? std::string("all of it") : amount_text(peer, "lag_");
    if (lag.empty()) lag = "none";
    if (!out.empty()) out += "; ";
    out += peers.size() == 1 ? lag : fmt::format("{}: {}", text_of(peer, "node"), lag);
  }
  return out.empty() ? "-" : out;
}

std::string image_loss(const json& image) {
  if (flag_of(image, "lost_whole")) return "all of it";
  std::string lost = amount_text(image, "lost_");
  return lost.empty() ? "nothing" : lost;
}

// What the columns do not say.
std::string image_remarks(const json& image) {
  std::string out;
  if (std::string owner = text_of(image, "owner"); !owner.empty() && text_of(image, "role") != "primary")
    out += fmt::format("owner: {}", owner);
  const json& peers = part_of(image, "peers");
  for (const json& peer : peers) {
    std::string state = text_of(peer, "state"), rule = text_of(peer, "rule");
    if (peers.size() > 1 && state != "in-sync")
      out += fmt::format("{}{}: {}", out.empty() ? "" : "; ", text_of(peer, "node"), state);
    if (state == "split" && !rule.empty()) out += fmt::format("{}rule: {}", out.empty() ? "" : "; ", rule);
  }
  return out.empty() ? "" : "(" + out + ")";
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
  if (rows.empty()) return out;
  using Cells = std::array<std::string, 6>;
  std::vector<Cells> lines{{"IMAGE", "ROLE", "STATE", "LAG", "LOST IF THIS NODE DIES", ""}};
  for (const json* row : rows)
    lines.push_back({text_of(*row, "path"), text_of(*row, "role"), text_of(*row, "state"), image_lag(*row),
                     image_loss(*row), image_remarks(*row)});
  std::array<std::size_t, 6> widths{};
  for (const Cells& cells : lines)
    for (std::size_t i = 0; i < cells.size(); ++i)
      widths[i] = std::max(widths[i], std::min<std::size_t>(cells[i].size(), 60));
  for (std::size_t n = 0; n < lines.size(); ++n) {
    std::string line;
    for (std::size_t i = 0; i < lines[n].size(); ++i) line += fmt::format("  {:<{}}", lines[n][i], widths[i]);
    while (line.ends_with(' ')) line.pop_back();
    if (n == 0)
      line = paint(options, Colour::kDim, line);
    else if (!as_it_should_be(*rows[n - 1]))
      line = paint(options, Colour::kWarn, line);
    out += line + "\n";
  }
  return out;
}

std::string loss_line(const json& status) {
  const json& loss = part_of(status, "loss_if_this_node_dies");
  std::string head = fmt::format("  if {} dies now:  ", text_of(status, "node"));
  if (part_of(status, "peers").empty())
    return head + "everything is lost that is on this node alone: the volume has no peer\n";
  std::string amount = amount_text(loss);
  std::string text;
  if (double images = number_of(loss, "images"); images > 0)
    text = fmt::format("{:.0f} image{}, of which no peer has a whole state yet", images, images == 1 ? "" : "s");
  if (!amount.empty()) text += fmt::format("{}{}", text.empty() ? "" : "; in all ", amount);
  if (text.empty()) return head + "nothing is lost\n";
  auto records = loss.find("records");
  if (records == loss.end() || !records->is_number())
    text += " (no peer was met since the daemon's start)";
  return head + "lost: " + text + "\n";
}

}  // namespace

std::string status_text(const json& answer, const StatusTextOptions& options) {
  const json status = with_printable_texts(answer);
  double now = number_of(status, "time");
  bool healthy = flag_of(status, "healthy");
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
                       indented(problem.is_string() ? problem.get<std::string>() : control_line(problem), "     "));
  if (number_of(part_of(status, "daemon"), "pid") == 0) return out + fmt::format("  store {}\n", text_of(status, "store"));
  if (!problems.empty()) out += "\n";

  const json& peers = part_of(status, "peers");
  std::size_t width = 0;
  for (const json& peer : peers) width = std::max(width, text_of(peer, "node").size());
  for (const json& peer : peers) out += peer_line(peer, now, width, options);
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
  out += fmt::format("  journal {} of {}, {}/s written, {} not yet in the store; store has {} free of {}\n",
                     human_size(bytes_of(journal, "bytes_used")),
                     human_size(bytes_of(journal, "bytes_max")),
                     human_size(bytes_of(journal, "write_bytes_per_second")),
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
