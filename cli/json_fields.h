// Fields of JSON that another process wrote, maybe of another version: they may be missing, null, or of another type
// than they have here, and `object` need be no object. Then the field is empty.
#pragma once

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace vmfs {

inline std::string text_of(const nlohmann::json& object, const char* key) {
  auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

// Every text of a list.
inline std::vector<std::string> texts_of(const nlohmann::json& object, const char* key) {
  std::vector<std::string> out;
  auto found = object.find(key);
  if (found == object.end() || !found->is_array()) return out;
  for (const nlohmann::json& element : *found)
    if (element.is_string()) out.push_back(element.get<std::string>());
  return out;
}

inline bool flag_of(const nlohmann::json& object, const char* key) {
  auto found = object.find(key);
  return found != object.end() && found->is_boolean() && found->get<bool>();
}

// At most so large that it can be made an integer.
inline double number_of(const nlohmann::json& object, const char* key) {
  constexpr double kMost = 9e18;
  auto found = object.find(key);
  return found != object.end() && found->is_number() ? std::clamp(found->get<double>(), -kMost, kMost) : 0;
}

// An object or a list.
inline const nlohmann::json& part_of(const nlohmann::json& object, const char* key) {
  static const nlohmann::json nothing = nlohmann::json::object();
  auto found = object.find(key);
  return found != object.end() && found->is_structured() ? *found : nothing;
}

}  // namespace vmfs
