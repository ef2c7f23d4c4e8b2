#include "net/wire/settings.h"

namespace vmfs {

const char* to_string(ReplicationMode mode) {
  switch (mode) {
    case ReplicationMode::kAsync: return "async";
    case ReplicationMode::kSemisync: return "semisync";
    case ReplicationMode::kSync: return "sync";
  }
  return "?";
}

}  // namespace vmfs
