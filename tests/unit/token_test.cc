#include "net/link/token.h"

#include <doctest/doctest.h>

#include "net/link/address.h"

using namespace vmfs;

namespace {
JoinToken sample() {
  JoinToken token;
  for (std::size_t i = 0; i < token.volume.size(); ++i) token.volume[i] = std::byte(i);
  for (std::size_t i = 0; i < token.secret.size(); ++i) token.secret[i] = std::byte(200 - i);
  token.volume_name = "guests";
  token.address = "192.0.2.1:7411";
  return token;
}
bool says(const Result<JoinToken>& result, std::string_view text) {
  return !result && result.error().message.find(text) != std::string::npos;
}
}  // namespace

TEST_SUITE("token") {
  TEST_CASE("a token comes back as it was, in upper case and wrapped lines too") {
    const JoinToken token = sample();
    auto text = encode_token(token);
    REQUIRE(text);
    CHECK(text->find_first_not_of("abcdefghijklmnopqrstuvwxyz1234567-") == std::string::npos);
    std::string shouted = "  ";
    for (char c : *text) {
      shouted += static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
      if (shouted.size() % 20 == 0) shouted += "\n ";
    }
    for (const std::string& form : {*text, *text + "\n", shouted}) {
      auto back = decode_token(form);
      REQUIRE(back);
      CHECK(back->volume == token.volume);
      CHECK(back->secret == token.secret);
      CHECK(back->volume_name == token.volume_name);
      CHECK(back->address == token.address);
    }
  }

  TEST_CASE("a token is golden") {
    CHECK(*encode_token(sample()) ==
          "vmfs1-afgqaaabaibqibiga4eascqlbqgq4d6iy7dmlrgdyla4bp56xw6lxovzxc33nnnuwozldmfpv2w2zk5kvedgo5"
          "lfon2hgdrrhezc4mbogixdcorxgqytdwm2x5ga");
  }

  TEST_CASE("what a person may get wrong is told apart") {
    const std::string text = *encode_token(sample());
    CHECK(says(decode_token(""), "empty"));
    CHECK(says(decode_token("192.0.2.1:7411"), "does not begin with \"vmfs1-\""));
    CHECK(says(decode_token("vmfs2-aaaa"), "same version"));
    CHECK(decode_token("vmfs2-aaaa").error().kind == ErrorKind::kRefused);
    CHECK(says(decode_token("vmfs1-"), "truncated"));
    CHECK(says(decode_token("vmfs1-" + std::string(2000, 'a')), "too long"));
    for (std::size_t size = kTokenPrefix.size(); size < text.size(); ++size)
      CHECK(says(decode_token(text.substr(0, size)), "truncated"));
    CHECK(says(decode_token(text + "abcd"), "appended"));
    CHECK(says(decode_token(text.substr(0, 40) + "!" + text.substr(41)), "'!' at place 41"));
    for (std::size_t at = kTokenPrefix.size(); at < text.size(); ++at) {
      std::string typed = text;
      typed[at] = typed[at] == 'q' ? 'r' : 'q';
      auto result = decode_token(typed);
      INFO("place ", at);
      // In the first places the size itself is hit.
      CHECK((says(result, "mistyped") || says(result, "truncated")));
    }
  }

  TEST_CASE("secrets differ") { CHECK(new_secret() != new_secret()); }

  TEST_CASE("addresses as people write them") {
    auto check = [](std::string_view text, std::string_view host, int port) {
      auto address = parse_address(text);
      REQUIRE(address);
      CHECK(address->host == host);
      CHECK(address->port == port);
    };
    check("node-b", "node-b", kDefaultPort);
    check("192.0.2.1:1", "192.0.2.1", 1);
    check("[2001:db8::1]:7000", "2001:db8::1", 7000);
    check("[::1]", "::1", kDefaultPort);
    CHECK(to_string(HostPort{"::1", 5}) == "[::1]:5");
    // A bracket in a name would, written out, be taken for the one that an IPv6 address begins with.
    for (const char* bad :
         {"", ":1", "a:", "a:x", "a:65536", "::1", "[::1", "[::1]x", "a b:1", "a/b", "[[a]:1", "a]:1"})
      CHECK_FALSE(parse_address(bad));
  }
}
