// A volume on a simulated disk, for the tests of fs/volume.
#pragma once

#include <doctest/doctest.h>

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "fs/volume/volume.h"
#include "tests/sim/lib/sim_clock.h"
#include "tests/sim/lib/sim_disk.h"
#include "tests/sim/lib/sim_random.h"

namespace vmfs::test {

class VolumeHome {
 public:
  explicit VolumeHome(std::uint64_t seed = 1, NodeId node = NodeId{7}, bool joining = false,
                      bool has_peers = false,
                      sim::MetadataOrder order = sim::MetadataOrder::kGlobal)
      : disk({.name = "store", .metadata_order = order}, seed, &clock) {
    options.journal.volume[0] = std::byte{1};
    options.journal.node = node;
    options.journal.segment_size = 1u << 20;
    options.journal.size_max = 16u << 20;
    options.joining = joining;
    options.has_peers = has_peers;
    REQUIRE(disk.make_directory("journal", "test"));
    journal_disk = disk.subdirectory("journal");
    auto created = Volume::create(disk, *journal_disk, clock, options);
    if (!created) FAIL(created.error().message);
    open();
  }
  void open(Volume::OpenArguments arguments = {}) {
    auto opened = Volume::open(disk, *journal_disk, clock, options, arguments);
    if (!opened) FAIL(opened.error().message);
    volume = std::move(*opened);
  }
  // The daemon dies and another one starts; the FUSE connection goes on if there is one.
  void kill_and_open(Volume::OpenArguments arguments = {}) {
    images.clear();
    volume.reset();
    disk.restart();
    open(std::move(arguments));
  }
  void lose_power_and_open() {
    images.clear();
    volume.reset();
    disk.lose_power();
    open();
  }
  void close_and_open() {
    images.clear();
    auto closed = volume->close();
    if (!closed) FAIL(closed.error().message);
    volume.reset();
    disk.restart();
    open();
  }

  Volume& operator*() { return *volume; }
  Volume* operator->() { return volume.get(); }

  ObjectId create(std::string_view name, ObjectId parent = kRootObject) {
    auto made = volume->create({}, parent, name, 0640);
    if (!made) FAIL(made.error().message << " errno " << made.error().number);
    return made->object;
  }
  ObjectRef open_image(ObjectId object, bool writable = true) {
    auto opened = volume->open_image(object, writable);
    if (!opened) FAIL(opened.error().message << " errno " << opened.error().number);
    return *opened;
  }
  ObjectRef open_path(std::string_view path, bool writable = true) {
    auto found = volume->resolve(path);
    REQUIRE(found);
    return open_image(found->object, writable);
  }
  void write(Object& image, std::uint64_t offset, std::string_view text) {
    constexpr std::size_t kPart = 200'000;  // small segments take small payloads
    for (std::size_t done = 0; done < text.size(); done += kPart) {
      auto written = volume->write(image, {}, offset + done, as_bytes(text.substr(done, kPart)));
      if (!written) FAIL(written.error().message << " errno " << written.error().number);
    }
  }
  std::string read(Object& image, std::uint64_t offset, std::size_t length) {
    std::string text(length, '?');
    auto got = volume->read(image, offset,
                            {reinterpret_cast<std::byte*>(text.data()), text.size()});
    if (!got) FAIL(got.error().message << " errno " << got.error().number);
    text.resize(*got);
    return text;
  }
  // What a flush returned; it must have ended.
  Result<> flush(Object& image) {
    std::optional<Result<>> outcome;
    volume->flush(image, {}, [&](Result<> result) { outcome = std::move(result); });
    REQUIRE(outcome.has_value());
    return std::move(*outcome);
  }
  void apply_all() {
    for (;;) {
      auto more = volume->apply_some(true);
      if (!more) FAIL(more.error().message);
      if (!*more) return;
    }
  }
  // The file in the store.
  std::string stored(const std::string& path) {
    auto content = read_whole_file(disk, "images/" + path, "test");
    if (!content) FAIL(content.error().message);
    return {reinterpret_cast<const char*>(content->data()), content->size()};
  }

  sim::SimClock clock;
  sim::SimDisk disk;
  std::unique_ptr<Disk> journal_disk;
  VolumeOptions options;
  std::unique_ptr<Volume> volume;
  std::vector<ObjectRef> images;
};

inline int errno_of(const auto& result) { return result ? 0 : result.error().number; }

}  // namespace vmfs::test
