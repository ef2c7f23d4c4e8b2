// `vmfs status` for a person: made for somebody tired, at night, with a guest that does not answer. The
// first line tells whether there is anything to do; problems come next, each with the next command;
// figures last.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace vmfs {

struct StatusTextOptions {
  bool colour = false;
  std::size_t images_max = 40;  // beyond it only those that are not as they should be are listed
};

// `status` as status_to_json() made it.
std::string status_text(const nlohmann::json& status, const StatusTextOptions& options);

}  // namespace vmfs
