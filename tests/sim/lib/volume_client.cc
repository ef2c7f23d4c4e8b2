#include "tests/sim/lib/volume_client.h"

#include <algorithm>
#include <cerrno>

#include "tests/sim/lib/scenario.h"

namespace vmfs::sim {

void VolumeClient::attach(Volume* volume) {
  handles_.clear();
  volume_ = volume;
}

ObjectId VolumeClient::pick(FileType type, bool or_root) {
  std::vector<ObjectId> candidates;
  if (or_root) candidates.push_back(kRootObject);
  for (const auto& [id, object] : history_.now())
    if (object.type == type) candidates.push_back(id);
  return candidates.empty() ? ObjectId{} : candidates[random_.below(candidates.size())];
}

// Few names, so that they are used again and stand in each other's way.
std::string VolumeClient::fresh_name() {
  return std::string(1, static_cast<char>('a' + random_.below(8)));
}

VolumeClient::Handle* VolumeClient::open(ObjectId object) {
  if (auto entry = handles_.find(object); entry != handles_.end()) return &entry->second;
  auto image = volume_->open_image(object, true);
  if (!image) return nullptr;
  return &handles_.emplace(object, Handle{*image, false}).first->second;
}

void VolumeClient::close(ObjectId object) {
  auto entry = handles_.find(object);
  if (entry == handles_.end()) return;
  volume_->close_image(entry->second.image);
  handles_.erase(entry);
}

void VolumeClient::close_all() {
  while (!handles_.empty()) close(handles_.begin()->first);
}

Change VolumeClient::plan_names() {
  Change c;
  c.parent = pick(FileType::kDirectory, true);
  c.name = fresh_name();
  const bool many = history_.now().size() >= limits_.objects_max;
  switch (many ? random_.between(3, 6) : random_.below(7)) {
    case 0:
      c.kind = ChangeKind::kMakeDirectory;
      break;
    case 1:
      c.kind = ChangeKind::kMakeSymlink;
      c.target = fmt::format("target {}", next_);
      break;
    case 2:
      c.kind = ChangeKind::kCreate;
      c.permissions = random_.one_in(2) ? 0644 : 0600;
      break;
    case 3: {
      c.kind = ChangeKind::kRemove;
      std::vector<ObjectId> all;
      for (const auto& [id, object] : history_.now()) all.push_back(id);
      if (!all.empty()) c.object = all[random_.below(all.size())];
      break;
    }
    default: {
      c.kind = ChangeKind::kRename;
      std::vector<ObjectId> all;
      for (const auto& [id, object] : history_.now()) all.push_back(id);
      if (!all.empty()) c.object = all[random_.below(all.size())];
      break;
    }
  }
  return c;
}

Change VolumeClient::plan_data() {
  Change c;
  c.object = pick(FileType::kRegular, false);
  if (raw(c.object) == 0) {
    c.kind = ChangeKind::kCreate;
    c.parent = pick(FileType::kDirectory, true);
    c.name = fresh_name();
    c.permissions = 0600;
    return c;
  }
  c.first = random_.below(limits_.cells_max);
  const std::uint64_t most =
      std::min(limits_.cells_max - c.first, random_.one_in(3) ? limits_.write_cells_max : 32);
  c.count = 1 + random_.below(most);
  switch (random_.below(12)) {
    default:
      c.kind = ChangeKind::kWrite;
      c.extends = true;
      break;
    case 0:
      c.kind = ChangeKind::kZero;
      c.extends = random_.one_in(2);
      if (random_.one_in(3)) c.count = 1 + random_.below(limits_.cells_max - c.first);
      break;
    case 1:
      c.kind = ChangeKind::kAllocate;
      c.extends = random_.one_in(2);
      break;
    case 2:
      c.kind = ChangeKind::kTruncate;
      break;
    case 3:
      c.kind = ChangeKind::kSetPermissions;
      c.permissions = 0600 | static_cast<std::uint32_t>(random_.below(0200));
      break;
  }
  return c;
}

Result<ObjectId> VolumeClient::perform(const Change& c) {
  const Caller caller;
  auto id_of = [](Result<Attributes>&& made) -> Result<ObjectId> {
    if (!made) return pass(std::move(made.error()));
    return made->object;
  };
  auto nothing = [&](Result<>&& done) -> Result<ObjectId> {
    if (!done) return pass(std::move(done.error()));
    return c.object;
  };
  const ModelState& now = history_.now();
  switch (c.kind) {
    case ChangeKind::kCreate:
      return id_of(volume_->create(caller, c.parent, c.name, c.permissions));
    case ChangeKind::kMakeDirectory:
      return id_of(volume_->make_directory(caller, c.parent, c.name, 0755));
    case ChangeKind::kMakeSymlink:
      return id_of(volume_->make_symlink(caller, c.parent, c.name, c.target));
    case ChangeKind::kRemove: {
      const ModelObject& object = now.at(c.object);
      if (object.type == FileType::kDirectory)
        return nothing(volume_->remove_directory(caller, object.parent, object.name));
      close(c.object);
      return nothing(volume_->unlink(caller, object.parent, object.name));
    }
    case ChangeKind::kRename: {
      const ModelObject& object = now.at(c.object);
      for (const auto& [id, other] : now)
        if (other.parent == c.parent && other.name == c.name && id != c.object) close(id);
      return nothing(
          volume_->rename(caller, object.parent, object.name, c.parent, c.name, random_.one_in(4)));
    }
    case ChangeKind::kSetPermissions: {
      AttributesToSet set;
      set.set.permissions = c.permissions;
      return id_of(volume_->set_attributes(caller, c.object, set));
    }
    case ChangeKind::kTruncate: {
      AttributesToSet set;
      set.size = c.first * kCell;
      return id_of(volume_->set_attributes(caller, c.object, set));
    }
    case ChangeKind::kWrite:
    case ChangeKind::kZero:
    case ChangeKind::kAllocate:
      break;
  }
  Handle* handle = open(c.object);
  if (!handle) return fail(ErrorKind::kIo, EIO, "cannot be opened");
  handle->wrote = true;
  const std::uint64_t offset = c.first * kCell, length = c.count * kCell;
  if (c.kind == ChangeKind::kZero)
    return nothing(
        volume_->zero(*handle->image, caller, offset, length, random_.one_in(2), c.extends));
  if (c.kind == ChangeKind::kAllocate)
    return nothing(volume_->allocate(*handle->image, caller, offset, length, !c.extends));
  Bytes bytes(length);
  for (std::uint64_t i = 0; i < c.count; ++i)
    mark_cell(bytes.data() + i * kCell, c.number, c.first + i);
  return nothing(volume_->write(*handle->image, caller, offset, bytes));
}

VolumeClient::Outcome VolumeClient::change(const std::function<bool()>& failed) {
  Change c = random_.percent(limits_.names_percent) ? plan_names() : plan_data();
  if (raw(c.object) == 0 && (c.kind == ChangeKind::kRemove || c.kind == ChangeKind::kRename))
    return Outcome::kRefused;
  c.number = next_++;
  const bool moves_nothing = c.kind == ChangeKind::kRename && history_.now().at(c.object).parent == c.parent &&
                             history_.now().at(c.object).name == c.name;
  Result<ObjectId> done = perform(c);
  ends_.resize(next_);
  ends_[c.number] = volume_->journal().reserved_lsn();
  c.end = ends_[c.number];
  if (done && !failed()) {
    c.object = *done;
    say("{}", describe(c));
    // It makes no record, so no flush of names promises what came before it.
    if (moves_nothing) return Outcome::kDone;
    history_.acknowledged(std::move(c));
    return Outcome::kDone;
  }
  if (!done) switch (done.error().kind) {
      case ErrorKind::kWouldWait:
        return Outcome::kRefused;
      case ErrorKind::kExists:
      case ErrorKind::kInvalid:
      case ErrorKind::kNotFound:
        if (!failed()) return Outcome::kRefused;
        break;
      case ErrorKind::kNoSpace:
        if (!failed() && c.kind >= ChangeKind::kWrite) return Outcome::kRefused;
        break;
      default:
        break;
    }
  say("in doubt: {} ({})", describe(c), done ? "ok" : done.error().message);
  history_.in_doubt(std::move(c));
  return Outcome::kUnknown;
}

void VolumeClient::check_some_read() {
  const ObjectId id = pick(FileType::kRegular, false);
  if (raw(id) == 0) return;
  Handle* handle = open(id);
  if (!handle) return;
  const std::vector<ChangeNumber>& cells = history_.now().at(id).cells;
  const std::uint64_t first = random_.below(limits_.cells_max);
  const std::uint64_t count = 1 + random_.below(limits_.write_cells_max);
  Bytes bytes(count * kCell);
  auto size = volume_->read(*handle->image, first * kCell, bytes);
  if (!size) return;  // the node failed, as the next change will find
  const std::uint64_t expected =
      first >= cells.size() ? 0 : std::min<std::uint64_t>(count, cells.size() - first);
  SIM_CHECK(*size == expected * kCell, "read {} bytes of {} at cell {}, expected {}", *size, id,
            first, expected * kCell);
  for (std::uint64_t i = 0; i < expected; ++i) {
    auto mark = read_mark(bytes.data() + i * kCell, first + i);
    SIM_CHECK(mark && *mark == cells[first + i], "read change {} in cell {} of {}, expected {}",
              mark ? static_cast<std::int64_t>(*mark) : -1, first + i, id, cells[first + i]);
  }
}

std::optional<GroupId> VolumeClient::flush() {
  GroupId group = kNameSpace;
  Result<> result;
  bool answered = false;
  auto done = [&](Result<> flushed) {
    result = std::move(flushed);
    answered = true;
  };
  if (const ObjectId id = pick(FileType::kRegular, false); raw(id) != 0 && random_.percent(80)) {
    Handle* handle = open(id);
    if (!handle) return std::nullopt;
    group = id;
    volume_->flush(*handle->image, {}, done);
  } else {
    volume_->flush_names({}, done);
  }
  SIM_CHECK(answered, "a flush without peers was not answered at once");
  if (!result) return std::nullopt;
  return group;
}

void VolumeClient::observe_directory(ObjectId directory, ModelState& out) {
  auto entries = volume_->list(directory);
  SIM_CHECK(entries.has_value(), "list {}: {}", directory, entries.error().message);
  for (const ListedEntry& entry : *entries) {
    if (entry.name == ".snapshots") continue;
    ModelObject object;
    object.type = entry.type;
    object.parent = directory;
    object.name = entry.name;
    SIM_CHECK(!out.contains(entry.object), "object {} has two names", entry.object);
    auto attributes = volume_->attributes(entry.object);
    SIM_CHECK(attributes.has_value(), "attributes of \"{}\": {}", entry.name,
              attributes.error().message);
    if (entry.type == FileType::kSymlink) {
      auto target = volume_->read_symlink(entry.object);
      SIM_CHECK(target.has_value(), "symlink \"{}\": {}", entry.name, target.error().message);
      object.target = *target;
    }
    if (entry.type == FileType::kRegular) {
      object.permissions = attributes->stat.permissions;
      auto image = volume_->open_image(entry.object, false);
      SIM_CHECK(image.has_value(), "open \"{}\": {}", entry.name, image.error().message);
      Bytes bytes(attributes->stat.size);
      auto size = volume_->read(**image, 0, bytes);
      SIM_CHECK(size && *size == bytes.size() && bytes.size() % kCell == 0,
                "read \"{}\" of {} bytes: {}", entry.name, bytes.size(),
                size ? fmt::format("{} bytes", *size) : size.error().message);
      volume_->close_image(*image);
      object.cells.resize(bytes.size() / kCell);
      for (std::uint64_t i = 0; i < object.cells.size(); ++i) {
        auto mark = read_mark(bytes.data() + i * kCell, i);
        SIM_CHECK(mark, "\"{}\" cell {} holds bytes that were never written", entry.name, i);
        object.cells[i] = *mark;
      }
    }
    out.emplace(entry.object, std::move(object));
    if (entry.type == FileType::kDirectory) observe_directory(entry.object, out);
  }
}

ModelState VolumeClient::observe() {
  ModelState out;
  observe_directory(kRootObject, out);
  return out;
}

std::string VolumeClient::settle(bool all) { return history_.settle(observe(), all); }

}  // namespace vmfs::sim
