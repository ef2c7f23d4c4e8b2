// The lines that go over the control socket: what a request and an answer are, without the socket.
//
//   {"command": "promote", "paths": ["web01.img"], "force": false}
//   {"ok": true, "text": "..."}                                        or what the command returns
//   {"ok": false, "error": {"kind": "refused", "number": 30, "message": "..."}}
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "fs/base/result.h"

namespace vmfs {

// With its end. Names in the volume need not be UTF-8; what is not becomes the replacement character.
std::string control_line(const nlohmann::json& value);

// A line without its end. kInvalid: it is no object, is nested too deep, or a field that a command knows is of
// another type than it must be. Fields that this version does not know are passed over.
Result<nlohmann::json> parse_control_request(std::string_view line);
// The answer, which has "ok": true; or the error that it bears; or kProtocol: it is no answer.
Result<nlohmann::json> parse_control_answer(std::string_view line);

nlohmann::json error_to_json(const Error& error);

}  // namespace vmfs
