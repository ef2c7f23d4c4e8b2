// Dialling, handshakes, and which connection to a peer counts.
#include <algorithm>

#include "fs/base/log.h"
#include "net/node/impl.h"

namespace vmfs {

Peer* Node::Impl::peer_by_id(NodeId id) {
  for (auto& peer : peers)
    if (raw(id) != 0 && peer->info.id == id) return peer.get();
  return nullptr;
}

const char* Node::Impl::name_of(NodeId id) {
  if (id == options.node) return options.node_name.c_str();
  Peer* peer = peer_by_id(id);
  if (peer == nullptr) return raw(id) == 0 ? "nobody" : "an unknown node";
  return peer->info.name.empty() ? peer->info.address.c_str() : peer->info.name.c_str();
}

Peer& Node::Impl::add_peer(const PeerInfo& info) {
  auto peer = std::make_unique<Peer>();
  peer->info = info;
  peer->back_off = BackOff(options.seed * 31 + peers.size() + 1);
  for (const PeerState& state : volume.peers())
    if (raw(info.id) != 0 && state.id == info.id) peer->persisted = state;
  peer->persisted.id = info.id;
  peer->persisted.name = info.name;
  peers.push_back(std::move(peer));
  return *peers.back();
}

// The node with the higher id lets the other dial first, if it can be dialled.
void Node::Impl::set_deference(Peer& peer) {
  peer.back_off.defer(!options.address.empty() && raw(peer.info.id) != 0 &&
                      raw(options.node) > raw(peer.info.id));
}

void Node::Impl::set_link_state(Peer& peer, LinkState state, std::string reason) {
  if (peer.link_state != state) {
    peer.link_since_wall_ns = clock.wall_ns();
    if (state == LinkState::kRefused)
      log_error("{}: connection refused: {}", peer.info.name, reason);
  }
  peer.link_state = state;
  peer.link_reason = std::move(reason);
}

void Node::Impl::dial_due_peers(std::int64_t now_ns) {
  for (auto& peer : peers) {
    if (peer->info.address.empty() || peer->connection != nullptr || !peer->back_off.due(now_ns))
      continue;
    peer->back_off.dialing();
    shell.dial(peer->info.address, node,
               [this, alive = alive, id = peer->info.id, address = peer->info.address](
                   Result<std::unique_ptr<Link>> link) {
                 if (!*alive || stopped) return;
                 auto it = std::find_if(peers.begin(), peers.end(), [&](const auto& candidate) {
                   return candidate->info.address == address && (raw(id) == 0 || candidate->info.id == id);
                 });
                 if (it == peers.end()) return;  // removed meanwhile; the link closes
                 Peer& dialed = **it;
                 if (!link) {
                   if (dialed.connection == nullptr) {
                     // A refusal is an answer: nothing changes before somebody does something about it.
                     bool refused = link.error().kind == ErrorKind::kRefused;
                     dialed.back_off.over(now(), refused);
                     set_link_state(dialed, refused ? LinkState::kRefused : LinkState::kConnecting,
                                    link.error().message);
                   }
                   wake_at(dialed.back_off.next_ns());
                   return;
                 }
                 // The peer was quicker; this link closes before it costs anybody anything.
                 if (dialed.connection != nullptr) return;
                 adopt_link(std::move(*link), &dialed);
               });
  }
}

SessionIdentity Node::Impl::identity() const {
  SessionIdentity identity;
  identity.own.volume = options.volume;
  identity.own.life = life;
  identity.own.payload_max = volume.journal().payload_max();
  identity.own.joining = options.joining;
  identity.own.self = {options.node, options.node_name, options.address};
  identity.removed = options.removed;
  for (const auto& peer : peers) {
    if (raw(peer->info.id) == 0)
      identity.expects_unknown = true;
    else
      identity.known.push_back(peer->info.id);
  }
  return identity;
}

void Node::Impl::adopt_link(std::unique_ptr<Link> link, Peer* dialed_for) {
  if (stopped) return;
  auto connection = std::make_unique<Connection>();
  connection->number = ++last_connection;
  connection->link = std::move(link);
  connection->session = std::make_unique<Session>(identity(), dialed_for != nullptr, now());
  connection->peer = dialed_for;
  Connection& opened = *connection;
  connections.push_back(std::move(connection));
  perform(opened, opened.session->opened());
  wake_at(opened.session->next_tick_ns());
}

Connection* Node::Impl::find(Link& link) {
  for (auto& connection : connections)
    if (connection->link.get() == &link && !connection->over) return connection.get();
  return nullptr;
}

void Node::Impl::perform(Connection& connection, Session::Actions actions) {
  for (Session::Action& action : actions) {
    if (connection.over) return;
    if (auto* sending = std::get_if<Session::SendAction>(&action)) {
      connection.link->send(encode_message(sending->message));
    } else if (auto* closing = std::get_if<Session::CloseAction>(&action)) {
      close(connection, closing->why, closing->refused);
    } else {
      established(connection);
    }
  }
}

// Makes the peer's entry say what its Hello said.
void Node::Impl::introduce(Connection& connection) {
  const PeerInfo& self = connection.session->peer().self;
  Peer* peer = peer_by_id(self.id);
  Peer* dialed = connection.peer;
  if (peer == nullptr && dialed != nullptr && raw(dialed->info.id) == 0) {
    peer = dialed;
  } else if (peer == nullptr) {
    peer = &add_peer({self.id, self.name, self.address});
    peer->info.id = NodeId{};  // so that it is told below
  } else if (dialed != nullptr && dialed != peer && raw(dialed->info.id) == 0) {
    // An address without an id turned out to be a peer that we knew already.
    if (peer->info.address.empty()) peer->info.address = dialed->info.address;
    std::erase_if(peers, [dialed](const auto& other) { return other.get() == dialed; });
  } else if (dialed != nullptr && dialed != peer) {
    // Whoever answers at that address is another node.
    dialed->back_off.over(now(), true);
    set_link_state(*dialed, LinkState::kRefused,
                   fmt::format("{} is the address of node {} now; correct it in vmfs.toml ([[peer]])",
                               dialed->info.address, self.name));
  }
  connection.peer = peer;
  PeerInfo learned = peer->info;
  learned.id = self.id;
  if (!self.name.empty()) learned.name = self.name;
  // An address that was configured here is kept: it may lead through another network.
  if (learned.address.empty()) learned.address = self.address;
  if (!(learned == peer->info)) {
    bool is_new = raw(peer->info.id) == 0;
    peer->info = learned;
    peer->persisted.id = learned.id;
    peer->persisted.name = learned.name;
    for (const PeerState& state : volume.peers())
      if (state.id == learned.id) peer->persisted = state;
    if (is_new) {
      log_notice("{} ({}) is a node of this volume", learned.name, learned.id);
      volume.set_peer(peer->persisted);
    }
    if (callbacks.peer_changed) callbacks.peer_changed(learned);
  }
}

void Node::Impl::established(Connection& connection) {
  // While the two shook hands.
  if (std::find(options.removed.begin(), options.removed.end(), connection.session->peer().self.id) !=
      options.removed.end())
    return close(connection, "removed from the volume", true);
  introduce(connection);
  Peer& peer = *connection.peer;
  if (Connection* older = peer.connection; older != nullptr && older != &connection) {
    if (!newer_connection_wins(older->session->facts(), connection.session->facts(), options.node,
                               peer.info.id)) {
      connection.peer = nullptr;
      perform(connection, connection.session->displaced());
      return;
    }
    peer_lost(peer, "another connection to it took over");
    older->established = false;
    older->peer = nullptr;
    perform(*older, older->session->displaced());
  }
  connection.established = true;
  peer.connection = &connection;
  peer.connected_ns = now();
  set_deference(peer);
  peer.back_off.established();
  peer.persisted.last_contact_wall_ns = clock.wall_ns();
  set_link_state(peer, LinkState::kConnected, "");
  log_notice("{}: connected ({})", peer.info.name, connection.link->remote());
  if (options.joining) {
    options.joining = false;
    if (callbacks.admitted) callbacks.admitted();
  }
  Peers known;
  known.peers.push_back({options.node, options.node_name, options.address});
  for (const auto& other : peers)
    if (raw(other->info.id) != 0) known.peers.push_back(other->info);
  send(peer, known);
  send(peer, options.settings);
  // Who has just joined may be new to those that are connected already.
  Peers joined;
  joined.peers.push_back(peer.info);
  for (const auto& other : peers)
    if (other.get() != &peer && other->connection != nullptr) send(*other, joined);
  begin_exchange(peer);
}

void Node::Impl::learn(const Peers& message) {
  for (const PeerInfo& info : message.peers) {
    if (info.id == options.node || raw(info.id) == 0 || peer_by_id(info.id) != nullptr) continue;
    if (std::find(options.removed.begin(), options.removed.end(), info.id) != options.removed.end())
      continue;
    add_peer(info);
    volume.set_peer(peers.back()->persisted);
    log_notice("{} ({}) is a node of this volume", info.name, info.id);
    if (callbacks.peer_changed) callbacks.peer_changed(info);
  }
}

void Node::Impl::close(Connection& connection, const std::string& why, bool refused) {
  if (connection.over) return;
  connection.over = true;
  log_debug("connection to {} ends: {}", connection.link->remote(), why);
  connection.link->close();
  Peer* peer = connection.peer;
  if (peer != nullptr && (peer->connection == &connection || peer->connection == nullptr)) {
    if (peer->connection == &connection) {
      log_notice("{}: connection lost: {}", peer->info.name, why);
      peer->connection = nullptr;
      peer_lost(*peer, why);
    }
    set_link_state(*peer, refused ? LinkState::kRefused : LinkState::kConnecting, why);
    peer->back_off.over(now(), refused);
    wake_at(peer->back_off.next_ns());
  } else if (peer == nullptr && refused) {
    log_warning("a connection from {} was refused: {}", connection.link->remote(), why);
  }
  post([this] { sweep(); });
}

void Node::Impl::sweep() {
  std::erase_if(connections, [](const auto& connection) { return connection->over; });
}

void Node::Impl::on_closed(Link& link, const Error& why) {
  Connection* connection = find(link);
  if (connection == nullptr) return;
  close(*connection, why.message.empty() ? "the connection broke" : why.message, false);
}

void Node::Impl::on_frame(Link& link, ByteView body) {
  Connection* connection = find(link);
  if (connection == nullptr || stopped) return;
  connection->session->heard(now());
  if (message_type(body) == MessageType::kRecords) {
    if (!connection->established || !connection->peer->stream)
      return close(*connection, "the peer sent records before histories were compared", false);
    Receiver& receiver = connection->peer->stream->receiver;
    receiver.records(body);
    return wake_at(receiver.next_tick_ns());
  }
  auto message = decode_message(body);
  if (!message) return close(*connection, message.error().message, false);
  perform(*connection, connection->session->message(*message, now()));
  if (connection->over || !connection->established) return;
  connection->peer->persisted.last_contact_wall_ns = clock.wall_ns();
  on_message(*connection->peer, std::move(*message));
}

void Node::Impl::send(Peer& peer, const Message& message) {
  if (peer.connection != nullptr && !peer.connection->over)
    peer.connection->link->send(encode_message(message));
}

void Node::Impl::on_message(Peer& peer, Message message) {
  if (auto* positions = std::get_if<Positions>(&message)) {
    on_positions(peer, std::move(*positions));
  } else if (auto* ack = std::get_if<Ack>(&message)) {
    on_ack(peer, *ack);
  } else if (std::holds_alternative<FlushRequest>(message)) {
    if (peer.stream) peer.stream->receiver.flush_request();
  } else if (auto* want = std::get_if<Want>(&message)) {
    on_want(peer, *want);
  } else if (auto* refused = std::get_if<WantRefused>(&message)) {
    auto it = asking.find(refused->group);
    if (it == asking.end() || it->second.asked != peer.info.id) return;
    bool active = refused->reason == WantRefusal::kActive;
    give_up_asking(refused->group, {active ? ErrorKind::kBusy : ErrorKind::kReadOnly,
                                    active ? EBUSY : EROFS, refused->text});
  } else if (auto* request = std::get_if<BaseRequest>(&message)) {
    on_base_request(peer, std::move(*request));
  } else if (auto* resolving = std::get_if<Resolve>(&message)) {
    if (resolving->winner == options.node) win(resolving->group, [](Result<>) {});
  } else if (auto* settings = std::get_if<VolumeSettings>(&message)) {
    if (settings->changed_wall_ns > options.settings.changed_wall_ns) take_settings(*settings);
  } else if (auto* standing = std::get_if<Standing>(&message)) {
    peer.told = *standing;
    if (peer.told.given) peer.brought = true;
    update_sync(peer);
    poke();  // who waits for it
  } else if (auto* known = std::get_if<Peers>(&message)) {
    learn(*known);
  } else if (auto* removed = std::get_if<PeerRemoved>(&message)) {
    if (removed->peer != options.node) remove_peer(removed->peer, [](Result<std::string>) {});
  }
}

}  // namespace vmfs
