#include "cli/control_line.h"

#include <fmt/format.h>

#include <cerrno>
#include <climits>
#include <utility>

#include "cli/json_fields.h"

namespace vmfs {

namespace {

using nlohmann::json;

constexpr std::pair<ErrorKind, const char*> kKindNames[] = {
    {ErrorKind::kIo, "io"},           {ErrorKind::kCorrupt, "corrupt"},
    {ErrorKind::kNoSpace, "no-space"}, {ErrorKind::kNotFound, "not-found"},
    {ErrorKind::kExists, "exists"},   {ErrorKind::kInvalid, "invalid"},
    {ErrorKind::kUnsupported, "unsupported"}, {ErrorKind::kBusy, "busy"},
    {ErrorKind::kReadOnly, "read-only"}, {ErrorKind::kWouldWait, "would-wait"},
    {ErrorKind::kProtocol, "protocol"}, {ErrorKind::kRefused, "refused"},
};

// More than any line of ours has: writing and copying a value take a stack that grows with it.
constexpr int kDepthMax = 32;

enum class FieldType { kText, kTexts, kFlag };
constexpr std::pair<const char*, FieldType> kRequestFields[] = {
    {"command", FieldType::kText}, {"for", FieldType::kText},     {"keep", FieldType::kText},
    {"node", FieldType::kText},    {"address", FieldType::kText}, {"paths", FieldType::kTexts},
    {"assignments", FieldType::kTexts}, {"force", FieldType::kFlag},
};

// Null: it is of that type.
const char* why_not(const json& value, FieldType type) {
  switch (type) {
    case FieldType::kText: return value.is_string() ? nullptr : "is not a text";
    case FieldType::kFlag: return value.is_boolean() ? nullptr : "is neither true nor false";
    case FieldType::kTexts: break;
  }
  bool good = value.is_array();
  for (const json& element : value) good = good && element.is_string();
  return good ? nullptr : "is not a list of texts";
}

// Discarded if it is not JSON, or nested deeper than anything that we write.
json parse_line(std::string_view line) {
  bool deep = false;
  json value = json::parse(
      line,
      [&](int depth, json::parse_event_t, json&) {
        deep = deep || depth > kDepthMax;
        return depth <= kDepthMax;
      },
      /*allow_exceptions=*/false);
  return deep ? json(json::value_t::discarded) : value;
}

Error error_of(const json& answer) {
  const json& object = part_of(answer, "error");
  Error error{ErrorKind::kIo, EIO, text_of(object, "message")};
  const std::string kind = text_of(object, "kind");
  for (auto& [value, name] : kKindNames)
    if (name == kind) error.kind = value;
  if (const double number = number_of(object, "number"); number > 0 && number < INT_MAX)
    error.number = static_cast<int>(number);
  if (error.message.empty())
    error.message = "the daemon refused and did not say why; its log may:  journalctl, or STORE/run/daemon.log";
  return error;
}

}  // namespace

std::string control_line(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace) + "\n";
}

Result<json> parse_control_request(std::string_view line) {
  json request = parse_line(line);
  if (!request.is_object())
    return fail(ErrorKind::kInvalid, EINVAL, "the request is not a JSON object, or nested too deep");
  for (auto& [key, type] : kRequestFields) {
    auto found = request.find(key);
    if (found == request.end()) continue;
    if (const char* why = why_not(*found, type))
      return fail(ErrorKind::kInvalid, EINVAL, fmt::format("the request's \"{}\" {}", key, why));
  }
  return request;
}

Result<json> parse_control_answer(std::string_view line) {
  json answer = parse_line(line);
  if (!answer.is_object() || !answer.contains("ok") || !answer["ok"].is_boolean())
    return fail(ErrorKind::kProtocol, EPROTO,
                "the daemon's answer is none: it may be of another version\n"
                "start the installed one with:  vmfs restart MOUNTPOINT");
  if (!answer["ok"].get<bool>()) return tl::unexpected<Error>(error_of(answer));
  return answer;
}

json error_to_json(const Error& error) {
  const char* kind = "io";
  for (auto& [value, name] : kKindNames)
    if (value == error.kind) kind = name;
  return {{"ok", false}, {"error", {{"kind", kind}, {"number", error.number}, {"message", error.message}}}};
}

}  // namespace vmfs
