// TLS 1.3 with an external pre-shared key and no certificates (OpenSSL 3), without sockets: cipher
// bytes go in and out through memory, so the owner of the socket decides when and how much is moved.
//
// The key is made from the volume's secret; the identity is the volume's id; key exchange is
// psk_dhe_ke, so that a stolen secret does not open what was recorded before.
#pragma once

#include <memory>
#include <span>

#include "fs/base/bytes.h"
#include "fs/base/result.h"
#include "net/link/handshake.h"

namespace vmfs {

// Shared by all links of a volume; make it once.
class TlsContext {
 public:
  static Result<std::shared_ptr<TlsContext>> create(const LinkCredentials& credentials);
  ~TlsContext();

 private:
  friend class TlsPipe;
  struct State;
  explicit TlsContext(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// One connection's cipher state. Not thread-safe.
class TlsPipe {
 public:
  TlsPipe(std::shared_ptr<TlsContext> context, LinkRole role);
  ~TlsPipe();

  // Cipher bytes that arrived. They must stay until the next call of consumed().
  void feed(ByteView cipher);
  // How many of the bytes fed last have been taken; the rest must be fed again with what follows.
  std::size_t unread() const;

  enum class Progress { kDone, kWantsInput };
  // Goes on with the handshake; output may have gathered either way. kRefused: the secret is wrong.
  Result<Progress> handshake();
  // After the handshake. Encrypts all of it into output().
  Result<> write(ByteView plain);
  // Decrypts into `out`; 0: more input is needed. kNotFound: the other side ended the connection.
  Result<std::size_t> read(std::span<std::byte> out);
  // Tells the other side that nothing follows.
  void shut_down();

  // Cipher bytes to be sent; drop what was sent.
  ByteView output() const;
  void drop_output(std::size_t size);

  std::array<std::byte, 32> exporter();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace vmfs
