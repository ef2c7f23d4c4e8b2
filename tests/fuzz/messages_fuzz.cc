// Any bytes either are no message (then the decoder says so) or mean something that, encoded and
// decoded again, means the same.
#include <cstdint>

#include "fs/base/check.h"
#include "net/wire/messages.h"
#include "net/wire/records.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  vmfs::ByteView body{reinterpret_cast<const std::byte*>(data), size};
  if (vmfs::message_type(body) == vmfs::MessageType::kRecords) {
    auto frame = vmfs::decode_records(body);
    if (!frame) return 0;
    vmfs::RecordsEncoder encoder;
    for (const vmfs::ReceivedRecord& record : frame->records) encoder.add(record.header, record.payload);
    vmfs::Bytes again = encoder.finish(frame->number, frame->sync_now, 0);
    auto second = vmfs::decode_records(again);
    CHECK_INVARIANT(second && second->records.size() == frame->records.size());
    return 0;
  }
  auto message = vmfs::decode_message(body);
  if (!message) return 0;
  vmfs::Bytes first = vmfs::encode_message(*message);
  auto second = vmfs::decode_message(first);
  CHECK_INVARIANT(second.has_value());
  CHECK_INVARIANT(vmfs::encode_message(*second) == first);
  return 0;
}
