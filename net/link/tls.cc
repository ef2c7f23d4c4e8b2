#include "net/link/tls.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

#include <cerrno>
#include <cstring>

#include "fs/base/check.h"

namespace vmfs {

namespace {

template <auto Free>
struct Deleter {
  template <class T>
  void operator()(T* pointer) const {
    Free(pointer);
  }
};
using ContextPointer = std::unique_ptr<SSL_CTX, Deleter<SSL_CTX_free>>;
using SslPointer = std::unique_ptr<SSL, Deleter<SSL_free>>;
using MethodPointer = std::unique_ptr<BIO_METHOD, Deleter<BIO_meth_free>>;

// TLS_AES_128_GCM_SHA256: the fastest with AES instructions; the hash that the key is bound to is
// SHA-256 either way.
constexpr unsigned char kCipher[2] = {0x13, 0x01};

std::string openssl_reason() {
  std::string text;
  while (unsigned long code = ::ERR_get_error()) {
    const char* reason = ::ERR_reason_error_string(code);
    if (!text.empty()) text += "; ";
    text += reason != nullptr ? reason : fmt::format("OpenSSL error {:#x}", code);
  }
  return text.empty() ? "unknown OpenSSL error" : text;
}

// The ends of an SSL's BIO: a view of what arrived, a buffer of what is to be sent.
struct CipherBuffers {
  ByteView input;
  Bytes output;
  std::size_t output_begin = 0;
};

int write_bio(BIO* bio, const char* data, std::size_t size, std::size_t* done) {
  auto* buffers = static_cast<CipherBuffers*>(::BIO_get_data(bio));
  auto* bytes = reinterpret_cast<const std::byte*>(data);
  buffers->output.insert(buffers->output.end(), bytes, bytes + size);
  *done = size;
  return 1;
}

int read_bio(BIO* bio, char* data, std::size_t size, std::size_t* done) {
  auto* buffers = static_cast<CipherBuffers*>(::BIO_get_data(bio));
  BIO_clear_retry_flags(bio);
  if (buffers->input.empty()) {
    BIO_set_retry_read(bio);
    *done = 0;
    return 0;
  }
  *done = std::min(size, buffers->input.size());
  std::memcpy(data, buffers->input.data(), *done);
  buffers->input = buffers->input.subspan(*done);
  return 1;
}

long control_bio(BIO*, int command, long, void*) { return command == BIO_CTRL_FLUSH ? 1 : 0; }

int create_bio(BIO* bio) {
  ::BIO_set_init(bio, 1);
  return 1;
}

}  // namespace

struct TlsContext::State {
  ContextPointer dialer, listener;
  MethodPointer method;
  std::array<std::byte, 32> key{};
  VolumeId identity{};

  // The session that stands for the external key; the caller owns it.
  SSL_SESSION* make_session(SSL* ssl) const {
    SSL_SESSION* session = ::SSL_SESSION_new();
    const SSL_CIPHER* cipher = ::SSL_CIPHER_find(ssl, kCipher);
    if (session == nullptr || cipher == nullptr ||
        ::SSL_SESSION_set1_master_key(session, reinterpret_cast<const unsigned char*>(key.data()),
                                      key.size()) != 1 ||
        ::SSL_SESSION_set_cipher(session, cipher) != 1 ||
        ::SSL_SESSION_set_protocol_version(session, TLS1_3_VERSION) != 1) {
      ::SSL_SESSION_free(session);
      return nullptr;
    }
    return session;
  }

  static int use_session(SSL* ssl, const EVP_MD* digest, const unsigned char** identity,
                         std::size_t* identity_size, SSL_SESSION** session) {
    auto* state = static_cast<State*>(SSL_get_app_data(ssl));
    *session = nullptr;
    *identity = reinterpret_cast<const unsigned char*>(state->identity.data());
    *identity_size = state->identity.size();
    // After a HelloRetryRequest only a key for the hash that was chosen may be offered.
    if (digest != nullptr && ::EVP_MD_get_type(digest) != NID_sha256) return 1;
    *session = state->make_session(ssl);
    return *session != nullptr ? 1 : 0;
  }

  static int find_session(SSL* ssl, const unsigned char* identity, std::size_t identity_size,
                          SSL_SESSION** session) {
    auto* state = static_cast<State*>(SSL_get_app_data(ssl));
    *session = nullptr;
    if (identity_size != state->identity.size() ||
        std::memcmp(identity, state->identity.data(), identity_size) != 0)
      return 1;
    *session = state->make_session(ssl);
    return *session != nullptr ? 1 : 0;
  }
};

struct TlsPipe::State : CipherBuffers {
  std::shared_ptr<TlsContext> context;
  SslPointer ssl;
};

TlsContext::TlsContext(std::unique_ptr<State> state) : state_(std::move(state)) {}
TlsContext::~TlsContext() = default;

Result<std::shared_ptr<TlsContext>> TlsContext::create(const LinkCredentials& credentials) {
  auto state = std::make_unique<State>();
  state->key = derive_key(credentials.secret, "vmfs link 1 tls psk");
  state->identity = credentials.volume;
  state->method.reset(::BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "vmfs link"));
  if (!state->method) return fail(ErrorKind::kUnsupported, ENOMEM, "TLS: " + openssl_reason());
  ::BIO_meth_set_write_ex(state->method.get(), write_bio);
  ::BIO_meth_set_read_ex(state->method.get(), read_bio);
  ::BIO_meth_set_ctrl(state->method.get(), control_bio);
  ::BIO_meth_set_create(state->method.get(), create_bio);
  for (LinkRole role : {LinkRole::kDialer, LinkRole::kListener}) {
    const bool dialer = role == LinkRole::kDialer;
    ContextPointer context(::SSL_CTX_new(dialer ? TLS_client_method() : TLS_server_method()));
    if (!context || ::SSL_CTX_set_min_proto_version(context.get(), TLS1_3_VERSION) != 1 ||
        ::SSL_CTX_set_max_proto_version(context.get(), TLS1_3_VERSION) != 1 ||
        ::SSL_CTX_set_ciphersuites(context.get(), "TLS_AES_128_GCM_SHA256") != 1)
      return fail(ErrorKind::kUnsupported, EPROTONOSUPPORT, "TLS 1.3: " + openssl_reason());
    // No tickets, no resumption, no early data: each connection proves the secret anew.
    ::SSL_CTX_set_num_tickets(context.get(), 0);
    ::SSL_CTX_set_session_cache_mode(context.get(), SSL_SESS_CACHE_OFF);
    ::SSL_CTX_set_options(context.get(), SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION);
    if (dialer) {
      ::SSL_CTX_set_psk_use_session_callback(context.get(), State::use_session);
      // The server has no certificate; without the right key the handshake fails before this matters.
      ::SSL_CTX_set_verify(context.get(), SSL_VERIFY_PEER, nullptr);
      state->dialer = std::move(context);
    } else {
      ::SSL_CTX_set_psk_find_session_callback(context.get(), State::find_session);
      state->listener = std::move(context);
    }
  }
  return std::shared_ptr<TlsContext>(new TlsContext(std::move(state)));
}

TlsPipe::TlsPipe(std::shared_ptr<TlsContext> context, LinkRole role)
    : state_(std::make_unique<State>()) {
  TlsContext::State& shared = *context->state_;
  const bool dialer = role == LinkRole::kDialer;
  state_->context = std::move(context);
  state_->ssl.reset(::SSL_new(dialer ? shared.dialer.get() : shared.listener.get()));
  BIO* bio = ::BIO_new(shared.method.get());
  CHECK_INVARIANT(state_->ssl != nullptr && bio != nullptr, "no memory for a TLS connection");
  ::BIO_set_data(bio, static_cast<CipherBuffers*>(state_.get()));
  ::SSL_set_bio(state_->ssl.get(), bio, bio);
  SSL_set_app_data(state_->ssl.get(), &shared);
  if (dialer)
    ::SSL_set_connect_state(state_->ssl.get());
  else
    ::SSL_set_accept_state(state_->ssl.get());
}

TlsPipe::~TlsPipe() = default;

void TlsPipe::feed(ByteView cipher) { state_->input = cipher; }
std::size_t TlsPipe::unread() const { return state_->input.size(); }

Result<TlsPipe::Progress> TlsPipe::handshake() {
  ::ERR_clear_error();
  const int result = ::SSL_do_handshake(state_->ssl.get());
  if (result == 1) return Progress::kDone;
  const int error = ::SSL_get_error(state_->ssl.get(), result);
  if (error == SSL_ERROR_WANT_READ) return Progress::kWantsInput;
  const unsigned long code = ::ERR_peek_error();
  const int reason = ERR_GET_REASON(code);
  const std::string text = openssl_reason();
  // The listener sees that the dialer's binder does not fit its key; the dialer gets an alert for it
  // (OpenSSL counts alerts from SSL_AD_REASON_OFFSET on). With no certificate anywhere the other
  // failures to agree on a key mean the same.
  const bool secret = ERR_GET_LIB(code) == ERR_LIB_SSL &&
                      (reason == SSL_R_BINDER_DOES_NOT_VERIFY ||
                       reason == SSL_AD_REASON_OFFSET + SSL_AD_ILLEGAL_PARAMETER ||
                       reason == SSL_AD_REASON_OFFSET + SSL_AD_DECRYPT_ERROR ||
                       reason == SSL_AD_REASON_OFFSET + SSL_AD_UNKNOWN_PSK_IDENTITY ||
                       reason == SSL_AD_REASON_OFFSET + SSL_AD_HANDSHAKE_FAILURE);
  if (secret) return fail(ErrorKind::kRefused, EACCES, text);
  return fail(ErrorKind::kProtocol, EPROTO, "TLS handshake: " + text);
}

Result<> TlsPipe::write(ByteView plain) {
  ::ERR_clear_error();
  while (!plain.empty()) {
    std::size_t done = 0;
    if (::SSL_write_ex(state_->ssl.get(), plain.data(), plain.size(), &done) != 1)
      return fail(ErrorKind::kProtocol, EPROTO, "TLS: " + openssl_reason());
    plain = plain.subspan(done);
  }
  return {};
}

Result<std::size_t> TlsPipe::read(std::span<std::byte> out) {
  ::ERR_clear_error();
  std::size_t total = 0;
  // One call yields one TLS record of at most 16 KiB.
  while (total < out.size()) {
    std::size_t done = 0;
    const int result =
        ::SSL_read_ex(state_->ssl.get(), out.data() + total, out.size() - total, &done);
    if (result == 1) {
      total += done;
      continue;
    }
    const int error = ::SSL_get_error(state_->ssl.get(), result);
    if (error == SSL_ERROR_WANT_READ || (total > 0 && error == SSL_ERROR_ZERO_RETURN)) break;
    if (error == SSL_ERROR_ZERO_RETURN)
      return fail(ErrorKind::kNotFound, ECONNRESET, "the other side ended the connection");
    return fail(ErrorKind::kProtocol, EPROTO, "TLS: " + openssl_reason());
  }
  return total;
}

void TlsPipe::shut_down() {
  ::ERR_clear_error();
  if (::SSL_is_init_finished(state_->ssl.get()) == 1) ::SSL_shutdown(state_->ssl.get());
  ::ERR_clear_error();
}

ByteView TlsPipe::output() const {
  return ByteView(state_->output).subspan(state_->output_begin);
}

void TlsPipe::drop_output(std::size_t size) {
  state_->output_begin += size;
  CHECK_COMPARE(state_->output_begin, <=, state_->output.size());
  if (state_->output_begin == state_->output.size()) {
    state_->output.clear();
    state_->output_begin = 0;
  }
}

std::array<std::byte, 32> TlsPipe::exporter() {
  static constexpr std::string_view kLabel = "EXPORTER-vmfs-link-1";
  std::array<std::byte, 32> material{};
  const int made = ::SSL_export_keying_material(
      state_->ssl.get(), reinterpret_cast<unsigned char*>(material.data()), material.size(),
      kLabel.data(), kLabel.size(), nullptr, 0, 0);
  CHECK_COMPARE(made, ==, 1);
  return material;
}

}  // namespace vmfs
