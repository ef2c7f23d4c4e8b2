// Any bytes either are no change (then decode() says so) or are exactly the encoding of the change
// that decode() returns.
#include <cstdint>

#include "fs/base/check.h"
#include "fs/journal/changes.h"

namespace {

template <class Change>
void round_trip(vmfs::ByteView bytes) {
  auto change = vmfs::decode<Change>(bytes);
  if (!change) return;
  vmfs::Bytes again = vmfs::encode(*change);
  CHECK_INVARIANT(std::equal(again.begin(), again.end(), bytes.begin(), bytes.end()),
                  "decoding and encoding {} bytes gave others", bytes.size());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  vmfs::ByteView bytes{reinterpret_cast<const std::byte*>(data + 1), size - 1};
  switch (data[0] % 10) {
    case 0: round_trip<vmfs::Create>(bytes); break;
    case 1: round_trip<vmfs::Unlink>(bytes); break;
    case 2: round_trip<vmfs::Rename>(bytes); break;
    case 3: round_trip<vmfs::DeleteObject>(bytes); break;
    case 4: round_trip<vmfs::AttributeChange>(bytes); break;
    case 5: round_trip<vmfs::EpochChange>(bytes); break;
    case 6: round_trip<vmfs::Release>(bytes); break;
    case 7: round_trip<vmfs::PeerConfirmations>(bytes); break;
    case 8: round_trip<vmfs::BaseBegin>(bytes); break;
    default: round_trip<std::vector<vmfs::BaseObject>>(bytes); break;
  }
  return 0;
}
