#include "io/checksum.h"

#include "io/file.h"
#include "src/base/error.h"

#include <openssl/evp.h>
#include <xxhash.h>

#include <array>
#include <vector>

namespace espalier {

namespace {

std::string hexadecimal(std::span<const unsigned char> digest) {
    constexpr std::string_view digits = "0123456789abcdef";
    std::string text;
    for (const unsigned char byte : digest) {
        text += digits[byte >> 4];
        text += digits[byte & 15];
    }
    return text;
}

std::string text_of(XXH128_hash_t hash) {
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, hash);
    return hexadecimal(canonical.digest);
}

/// body(piece) over a file in pieces of 4 MiB.
template <typename Body>
void for_each_piece(const std::filesystem::path& path, const Body& body) {
    const InputFile file(path);
    std::vector<std::byte> piece(std::size_t{4} << 20);
    for (std::uint64_t offset = 0; offset < file.size(); offset += piece.size()) {
        const std::size_t bytes = static_cast<std::size_t>(std::min<std::uint64_t>(piece.size(), file.size() - offset));
        file.read(offset, std::span(piece).first(bytes));
        body(std::span<const std::byte>(piece).first(bytes));
    }
}

class Sha256 {
  public:
    Sha256() : context_(EVP_MD_CTX_new()) {
        require(context_ != nullptr && EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) == 1, "SHA-256 starts");
    }
    void update(std::span<const std::byte> data) {
        require(EVP_DigestUpdate(context_.get(), data.data(), data.size()) == 1, "SHA-256 takes data");
    }
    std::string finish() {
        std::array<unsigned char, 32> digest{};
        unsigned int length = 0;
        require(EVP_DigestFinal_ex(context_.get(), digest.data(), &length) == 1, "SHA-256 finishes");
        return hexadecimal(digest);
    }

  private:
    struct Free {
        void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
    };
    std::unique_ptr<EVP_MD_CTX, Free> context_;
};

}  // namespace

std::string xxh3_128(std::span<const std::byte> data) {
    return text_of(XXH3_128bits(data.data(), data.size()));
}

std::string xxh3_128_of_file(const std::filesystem::path& path) {
    struct Free {
        void operator()(XXH3_state_t* state) const { XXH3_freeState(state); }
    };
    const std::unique_ptr<XXH3_state_t, Free> state(XXH3_createState());
    require(state != nullptr && XXH3_128bits_reset(state.get()) == XXH_OK, "XXH3 starts");
    for_each_piece(
        path, [&](std::span<const std::byte> piece) { XXH3_128bits_update(state.get(), piece.data(), piece.size()); });
    return text_of(XXH3_128bits_digest(state.get()));
}

std::string sha256(std::string_view text) {
    Sha256 hash;
    hash.update(std::as_bytes(std::span(text)));
    return hash.finish();
}

std::string sha256_of_file(const std::filesystem::path& path) {
    Sha256 hash;
    for_each_piece(path, [&](std::span<const std::byte> piece) { hash.update(piece); });
    return hash.finish();
}

}  // namespace espalier
