// What may stand on a store's files as tags. Any bytes either are no tag (then decoding says so) or are exactly
// the encoding of what decoding returns. And a store whose files carry them opens with every object still
// there, or refuses, names the file, and has removed nothing.
#include <cstdint>
#include <string>

#include "fs/base/check.h"
#include "fs/store/store_state.h"
#include "tests/sim/lib/sim_clock.h"
#include "tests/sim/lib/sim_disk.h"

namespace {

using namespace vmfs;

void round_trips(ByteView bytes) {
  const Bytes input(bytes.begin(), bytes.end());
  if (auto object = decode_id(bytes)) CHECK_INVARIANT(encode_id(*object) == input);
  if (auto home = decode_home(bytes)) {
    CHECK_INVARIANT(encode_home(*home) == input);
    CHECK_INVARIANT(why_invalid_name(home->name) == nullptr);
  }
}

constexpr std::uint64_t kDirectory = 10, kMoved = 11, kImage = 12;

// A directory, and in unlinked/ another one as a redo leaves it that is cut short, with an image in it.
void make(Disk& disk) {
  CHECK_INVARIANT(Store::create(disk).has_value());
  auto store = Store::open(disk);
  CHECK_INVARIANT(store.has_value());
  const auto create = [&](std::uint64_t object, std::uint64_t parent, const char* name, FileType type) {
    CHECK_INVARIANT((*store)
                        ->create_object({.object = ObjectId{object}, .parent = ObjectId{parent}, .name = name,
                                         .type = type, .permissions = 0700, .target = {}, .first_epoch = EpochId{1}})
                        .has_value());
  };
  create(kDirectory, raw(kRootObject), "a", FileType::kDirectory);
  create(kMoved, kDirectory, "b", FileType::kDirectory);
  create(kImage, kMoved, "c", FileType::kRegular);
  // Into what is below it: what is between is displaced.
  CHECK_INVARIANT((*store)
                      ->rename({.object = ObjectId{kDirectory}, .from_parent = kRootObject, .from_name = "a",
                                .to_parent = ObjectId{kMoved}, .to_name = "a"})
                      .has_value());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 1) return 0;
  const ByteView tag{reinterpret_cast<const std::byte*>(data + 1), size - 1};
  round_trips(tag);

  sim::SimClock clock;
  sim::SimDisk disk({.name = "store"}, 1, &clock);
  make(disk);
  const std::string displaced = fmt::format("{}/{:016x}", kUnlinked, kMoved);
  const bool home = (data[0] & 1) != 0;
  const std::string path = home || (data[0] & 2) != 0 ? displaced : displaced + "/c";
  CHECK_INVARIANT(disk.set_tag(path, home ? kHomeTag : kIdTag, tag, "fuzz").has_value());
  auto store = Store::open(disk);
  if (!store) {
    CHECK_INVARIANT(store.error().message.find(disk.display(path)) != std::string::npos, "{}", store.error().message);
    CHECK_INVARIANT(disk.stat(displaced + "/c", "fuzz").has_value(), "an image was removed");
    return 0;
  }
  auto ended = (*store)->sync_names();
  CHECK_INVARIANT(ended.has_value(), "{}", ended.error().message);
  if (home) {
    for (std::uint64_t object : {kDirectory, kMoved, kImage}) {
      auto found = (*store)->path_of(ObjectId{object});
      CHECK_INVARIANT(found && disk.stat(*found, "fuzz").has_value(), "object {} is not where the store says", object);
    }
  }
  return 0;
}
