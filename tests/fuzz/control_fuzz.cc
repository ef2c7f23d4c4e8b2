// The lines of the control socket, and what a person is shown of a daemon's answer. Any line either is a request
// whose fields have their types, or is refused; either is an answer, or the error that it bears, with a message; and
// whatever an answer says of a volume's status becomes a text.
#include <cstdint>
#include <string>
#include <string_view>

#include "cli/control_line.h"
#include "cli/json_fields.h"
#include "cli/status_text.h"
#include "fs/base/check.h"

namespace {

using namespace vmfs;
using nlohmann::json;

// Without its end, as the socket's reader cuts it.
std::string line_of(const json& value) {
  std::string line = control_line(value);
  CHECK_INVARIANT(line.ends_with('\n') && line.find('\n') == line.size() - 1, "{}", line);
  line.pop_back();
  return line;
}

void request(std::string_view line) {
  auto parsed = parse_control_request(line);
  if (!parsed) {
    CHECK_INVARIANT(parsed.error().kind == ErrorKind::kInvalid && !parsed.error().message.empty());
    return;
  }
  for (const char* key : {"command", "for", "keep", "node", "address"})
    CHECK_INVARIANT(!parsed->contains(key) || (*parsed)[key] == text_of(*parsed, key), "{}", key);
  for (const char* key : {"paths", "assignments"})
    CHECK_INVARIANT(!parsed->contains(key) || (*parsed)[key].size() == texts_of(*parsed, key).size(), "{}", key);
  CHECK_INVARIANT(!parsed->contains("force") || (*parsed)["force"] == flag_of(*parsed, "force"));
  auto again = parse_control_request(line_of(*parsed));
  CHECK_INVARIANT(again && *again == *parsed, "{}", line);
}

void answer(std::string_view line) {
  auto parsed = parse_control_answer(line);
  if (!parsed) {
    const Error& error = parsed.error();
    CHECK_INVARIANT(!error.message.empty());
    auto again = parse_control_answer(line_of(error_to_json(error)));
    CHECK_INVARIANT(!again && again.error().kind == error.kind && again.error().number == error.number &&
                        again.error().message == error.message,
                    "{}", error.message);
    return;
  }
  CHECK_INVARIANT(flag_of(*parsed, "ok"));
  auto again = parse_control_answer(line_of(*parsed));
  CHECK_INVARIANT(again && *again == *parsed, "{}", line);
  for (bool colour : {false, true}) {
    const std::string text = status_text((*parsed)["status"], {.colour = colour, .images_max = 2});
    CHECK_INVARIANT(text.ends_with('\n'), "{}", text);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view line(reinterpret_cast<const char*>(data), size);
  request(line);
  answer(line);
  // Half of all inputs are no JSON by themselves.
  answer("{\"ok\": true, \"status\": " + std::string(line) + "}");
  return 0;
}
